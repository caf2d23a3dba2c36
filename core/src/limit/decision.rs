//! The answer about one request, as figures.

use std::time::Duration;

/// Whether a request is within a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It is.
    Admitted {
        /// Further requests that would be admitted now.
        remaining: u32,
        /// Whole seconds, rounded up, until the bucket is full again; at most a century or so.
        full_after_seconds: u32,
    },
    /// It is not, and took nothing.
    Refused {
        /// Until it would be admitted, if nothing else is meanwhile; [`Duration::MAX`] if
        /// that is not known, because this proxy has no share at present.
        retry_after: Duration,
    },
}

impl Decision {
    /// Whether the request may go on.
    #[inline]
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        matches!(self, Self::Admitted { .. })
    }

    /// The parameter `r` of the field `RateLimit`: requests that are left.
    #[inline]
    #[must_use]
    pub fn remaining(&self) -> u32 {
        match self {
            Self::Admitted { remaining, .. } => *remaining,
            Self::Refused { .. } => 0,
        }
    }

    /// The parameter `t` of the field `RateLimit`: whole seconds, rounded up, until the
    /// bucket is full, or until a request is admitted again.
    #[inline]
    #[must_use]
    pub fn reset_seconds(&self) -> u32 {
        match self {
            Self::Admitted { full_after_seconds, .. } => *full_after_seconds,
            Self::Refused { .. } => {
                let seconds = self.retry_after_seconds().unwrap_or_default();
                u32::try_from(seconds).unwrap_or(u32::MAX)
            }
        }
    }

    /// The value of the field `Retry-After` of a refusal: whole seconds, rounded up, 1 to
    /// 3600.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Admitted { .. } => None,
            Self::Refused { retry_after } if *retry_after == Duration::MAX => Some(1),
            Self::Refused { retry_after } => Some(seconds(*retry_after).clamp(1, 3600)),
        }
    }
}

/// What the field `RateLimit-Policy` tells about a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    /// The parameter `q`: what may come in `w` seconds; the burst, or what a second brings
    /// if that is more: a client that keeps to `q` in each `w` uses all of the rate.
    pub quota: u32,
    /// The parameter `w`: whole seconds, rounded up, in which that comes in anew.
    pub window_seconds: u64,
}

impl Quota {
    /// Of a limit of `rate` millionths of a token per second.
    #[must_use]
    pub fn new(rate: u64, burst: u32) -> Self {
        let of_a_second = u32::try_from(rate / super::MICROS).unwrap_or(u32::MAX);
        let quota = burst.max(of_a_second);
        let parts = u64::from(quota) * super::MICROS;
        Self { quota, window_seconds: parts.div_ceil(rate.max(1)).max(1) }
    }
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::MICROS;

    #[test]
    fn header_fields_have_whole_seconds() {
        let refused = |retry_after| Decision::Refused { retry_after };
        for (wait, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (9_999_999, 3600)] {
            let decision = refused(Duration::from_millis(wait));
            assert_eq!(decision.retry_after_seconds(), Some(seconds), "{wait} ms");
            assert_eq!((u64::from(decision.reset_seconds()), decision.remaining()), (seconds, 0));
        }
        assert_eq!(refused(Duration::MAX).retry_after_seconds(), Some(1));
        let admitted = Decision::Admitted { remaining: 7, full_after_seconds: 3 };
        assert_eq!(admitted.retry_after_seconds(), None);
        assert_eq!((admitted.reset_seconds(), admitted.remaining()), (3, 7));
    }

    #[test]
    fn a_policy_is_a_burst_or_a_second_and_how_long_it_takes_to_come_in() {
        for (rate, burst, window_seconds) in
            [(100 * MICROS, 100, 1), (MICROS, 60, 60), (MICROS / 60, 1, 61), (9 * MICROS, 9, 1)]
        {
            assert_eq!(Quota::new(rate, burst), Quota { quota: burst, window_seconds });
        }
        let quota = Quota { quota: 200, window_seconds: 1 };
        assert_eq!(Quota::new(200 * MICROS, 20), quota, "not 20 in a second");
    }
}
