//! What proxies are sent, encoded once for all that lack the same.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use lb_core::sync::Publisher;
use lb_proto::frame::{Whole, delta_body};

/// Transmissions of the newest revision. None is kept for its own sake: each is there as long as
/// a stream holds it, which is until its proxy has taken it.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    newest: Mutex<Newest>,
}

#[derive(Debug, Default)]
struct Newest {
    revision: u64,
    /// Changes up to it, by what the receiver holds.
    deltas: BTreeMap<u64, Weak<Later<Bytes>>>,
    /// Its whole state.
    whole: Weak<Later<Whole>>,
}

/// What is encoded when it is first looked at, which takes long where it is large: never under a
/// lock that others need. Whoever else looks at it meanwhile waits.
#[derive(Debug)]
pub(super) struct Later<T>(LazyLock<T, Box<dyn FnOnce() -> T + Send>>);

impl<T> Later<T> {
    fn new(encode: impl FnOnce() -> T + Send + 'static) -> Self {
        Self(LazyLock::new(Box::new(encode)))
    }
}

impl<T> Deref for Later<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Encoded {
    /// The published changes after this revision, which are due.
    pub(super) fn delta(&self, publisher: &Publisher, from: u64) -> Arc<Later<Bytes>> {
        let revision = publisher.version().revision;
        if let Some(known) = self.newest(revision).delta(from) {
            return known;
        }
        // Laggards that are all at different revisions do not wait for each other here.
        let delta = publisher.delta_since(from).expect("a delta is due only if there is one");
        let delta = Arc::new(Later::new(move || delta_body(delta)));
        let mut newest = self.newest(revision);
        if let Some(known) = newest.delta(from) {
            return known;
        }
        newest.deltas.retain(|_, known| known.strong_count() > 0);
        newest.deltas.insert(from, Arc::downgrade(&delta));
        delta
    }

    /// The published state.
    pub(super) fn whole(&self, publisher: &Publisher) -> Arc<Later<Whole>> {
        let revision = publisher.version().revision;
        if let Some(known) = self.newest(revision).whole.upgrade() {
            return known;
        }
        let state = publisher.full_state(None);
        let whole = Arc::new(Later::new(move || Whole::new(state)));
        let mut newest = self.newest(revision);
        if let Some(known) = newest.whole.upgrade() {
            return known;
        }
        newest.whole = Arc::downgrade(&whole);
        whole
    }

    /// What is known of this revision, which is the newest.
    fn newest(&self, revision: u64) -> MutexGuard<'_, Newest> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.revision != revision {
            *newest = Newest { revision, ..Newest::default() };
        }
        newest
    }
}

impl Newest {
    fn delta(&self, from: u64) -> Option<Arc<Later<Bytes>>> {
        self.deltas.get(&from)?.upgrade()
    }
}

#[cfg(test)]
impl Encoded {
    /// How many transmissions of the newest revision are in memory.
    pub(crate) fn held(&self) -> usize {
        let newest = self.newest.lock().unwrap();
        let deltas = newest.deltas.values().filter(|known| known.strong_count() > 0).count();
        deltas + usize::from(newest.whole.strong_count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use lb_core::{
        model::{Epoch, Key, Version},
        sync::{Object, ObjectSet},
    };

    use super::*;

    fn publisher() -> Publisher {
        let version = Version { epoch: Epoch([1; 16]), revision: 10 };
        Publisher::new(version, ObjectSet::new())
    }

    fn commit(publisher: &mut Publisher, revision: u64) {
        let payload = revision.to_le_bytes().to_vec().into();
        let object = Object { key: Key::new("backend", "a"), revision, payload };
        publisher.commit(revision, vec![object], vec![], 0);
    }

    #[test]
    fn what_is_due_is_encoded_once_for_all_and_held_as_long_as_anybody_needs_it() {
        let mut publisher = publisher();
        let encoded = Encoded::default();
        for revision in 11..40 {
            commit(&mut publisher, revision);
            let deltas: Vec<_> =
                (10..revision).map(|from| encoded.delta(&publisher, from)).collect();
            for (from, delta) in (10..revision).zip(&deltas) {
                assert_eq!(***delta, delta_body(publisher.delta_since(from).unwrap()));
                assert!(Arc::ptr_eq(delta, &encoded.delta(&publisher, from)));
            }
            let (first, second) = (encoded.whole(&publisher), encoded.whole(&publisher));
            assert!(Arc::ptr_eq(&first, &second));
            assert_eq!(first.objects(), 1);
            assert_eq!(encoded.held(), deltas.len() + 1);
            drop((deltas, first, second));
            assert_eq!(encoded.held(), 0);
            let again = encoded.delta(&publisher, 10);
            assert_eq!(encoded.newest(revision).deltas.len(), 1, "nothing is left of the others");
            drop(again);
        }
    }

    #[test]
    fn what_is_under_way_is_not_given_out_for_a_newer_revision() {
        let mut publisher = publisher();
        let encoded = Encoded::default();
        commit(&mut publisher, 11);
        let (delta, whole) = (encoded.delta(&publisher, 10), encoded.whole(&publisher));
        commit(&mut publisher, 12);
        assert_ne!(**delta, **encoded.delta(&publisher, 10));
        assert!(!Arc::ptr_eq(&whole, &encoded.whole(&publisher)));
    }

    #[test]
    fn nothing_is_encoded_before_it_is_looked_at() {
        let made = Arc::new(Mutex::new(0));
        let count = Arc::clone(&made);
        let later = Later::new(move || *count.lock().unwrap() += 1);
        assert_eq!(*made.lock().unwrap(), 0);
        for () in [*later, *later] {
            assert_eq!(*made.lock().unwrap(), 1);
        }
    }
}
