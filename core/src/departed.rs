//! Names that are gone, of which something is still counted.
//!
//! What was counted last is to be read once more, so it cannot go with its object; and names can be
//! made without end, so it cannot stay.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a name is kept that is gone: many times what lies between two scrapes.
pub const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How many names that are gone are kept.
pub const KEPT_MAX: usize = 100;

/// Since when names are gone.
#[derive(Clone, Debug)]
pub struct Departed<K>(BTreeMap<K, Instant>);

impl<K> Default for Departed<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Clone + Ord> Departed<K> {
    /// Which names are to be dropped: those that are gone for long, and the oldest beyond
    /// [`KEPT_MAX`]. `gone` are all that are gone and not dropped yet; one that is back is none of
    /// them.
    pub fn overdue(&mut self, gone: impl IntoIterator<Item = K>, now: Instant) -> Vec<K> {
        let since = |key: K| {
            let since = self.0.get(&key).copied().unwrap_or(now);
            (key, since)
        };
        let known: BTreeMap<K, Instant> = gone.into_iter().map(since).collect();
        let mut by_age: Vec<(Instant, K)> =
            known.iter().map(|(key, since)| (*since, key.clone())).collect();
        by_age.sort();
        let excess = by_age.len().saturating_sub(KEPT_MAX);
        self.0 = known;
        let mut overdue = Vec::new();
        for (place, (since, key)) in by_age.into_iter().enumerate() {
            if place < excess || now.saturating_duration_since(since) >= KEPT_FOR {
                self.0.remove(&key);
                overdue.push(key);
            }
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the one epoch of a simulated clock")]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn what_is_gone_is_kept_for_an_hour_unless_it_comes_back() {
        let (mut departed, began) = (Departed::default(), epoch());
        let second = Duration::from_secs(1);
        assert!(departed.overdue(["a"], began).is_empty());
        assert!(departed.overdue(["a", "b"], began + KEPT_FOR - second).is_empty());
        assert_eq!(departed.overdue(["a", "b"], began + KEPT_FOR), ["a"]);
        // It was back for a moment.
        assert!(departed.overdue([], began + KEPT_FOR).is_empty());
        assert!(departed.overdue(["b"], began + 2 * KEPT_FOR - second).is_empty());
        assert_eq!(departed.overdue(["b"], began + 3 * KEPT_FOR), ["b"]);
    }

    #[test]
    fn a_thousand_names_do_not_stay_and_the_oldest_go_first() {
        let (mut departed, began) = (Departed::default(), epoch());
        let mut kept: Vec<u32> = Vec::new();
        for number in 0..1000 {
            kept.push(number);
            let now = began + Duration::from_millis(number.into());
            let overdue = departed.overdue(kept.clone(), now);
            kept.retain(|number| !overdue.contains(number));
        }
        assert_eq!(kept, (900..1000).collect::<Vec<_>>());
    }
}
