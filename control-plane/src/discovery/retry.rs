//! When to ask again what has just failed.

use std::time::Duration;

use super::resolver::{TTL, TTL_MIN};

/// The pause after so many failures in a row: 1 s, doubling to 30 s.
pub(crate) fn pause(failures: u32) -> Duration {
    (TTL_MIN * 2_u32.saturating_pow(failures.saturating_sub(1).min(16))).min(TTL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_half_a_minute() {
        let seconds = [1, 2, 3, 5, 6, 1000].map(|failures| pause(failures).as_secs());
        assert_eq!(seconds, [1, 2, 4, 16, 30, 30]);
    }
}
