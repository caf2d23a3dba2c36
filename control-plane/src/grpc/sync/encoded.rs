//! What proxies are sent, encoded once for all that lack the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use lb_core::sync::Publisher;
use lb_proto::frame::{Whole, delta_body};

/// Changes up to the newest revision that are kept: from the one before, and from those at which
/// laggards are.
const DELTAS_MAX: usize = 8;

/// The newest transmissions. Each is made under a lock, so that whoever needs the same waits for
/// it and does not make it again.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    deltas: Mutex<Deltas>,
    state: Mutex<State>,
}

/// Changes up to one revision.
#[derive(Debug, Default)]
struct Deltas {
    to: u64,
    /// By what the receiver holds.
    from: Vec<(u64, Bytes)>,
}

/// The state of one revision.
#[derive(Debug, Default)]
struct State {
    revision: u64,
    /// There as long as it is under way to anybody.
    whole: Weak<Whole>,
}

impl Encoded {
    /// The published changes after this revision, which are due.
    pub(super) fn delta(&self, publisher: &Publisher, from: u64) -> Bytes {
        let to = publisher.version().revision;
        let mut deltas = locked(&self.deltas);
        if deltas.to != to {
            *deltas = Deltas { to, from: Vec::new() };
        }
        if let Some((_, body)) = deltas.from.iter().find(|(known, _)| *known == from) {
            return body.clone();
        }
        let delta = publisher.delta_since(from);
        let body = delta_body(delta.expect("a delta is due only if there is one"));
        if deltas.from.len() < DELTAS_MAX {
            deltas.from.push((from, body.clone()));
        }
        body
    }

    /// The published state.
    pub(super) fn whole(&self, publisher: &Publisher) -> Arc<Whole> {
        let revision = publisher.version().revision;
        let mut state = locked(&self.state);
        if state.revision == revision
            && let Some(whole) = state.whole.upgrade()
        {
            return whole;
        }
        let whole = Arc::new(Whole::new(publisher.full_state(None)));
        *state = State { revision, whole: Arc::downgrade(&whole) };
        whole
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use lb_core::{
        model::{Epoch, Key, Version},
        sync::{Object, ObjectSet},
    };

    use super::*;

    fn commit(publisher: &mut Publisher, revision: u64) {
        let payload = revision.to_le_bytes().to_vec().into();
        let object = Object { key: Key::new("backend", "a"), revision, payload };
        publisher.commit(revision, vec![object], vec![], 0);
    }

    #[test]
    fn what_is_kept_is_of_the_newest_revision() {
        let version = Version { epoch: Epoch([1; 16]), revision: 10 };
        let mut publisher = Publisher::new(version, ObjectSet::new());
        let encoded = Encoded::default();
        for revision in 11..40 {
            commit(&mut publisher, revision);
            for from in (10..revision).rev() {
                let fresh = delta_body(publisher.delta_since(from).unwrap());
                assert_eq!(encoded.delta(&publisher, from), fresh);
            }
            let again = |from| encoded.delta(&publisher, from).as_ptr();
            assert_eq!(again(revision - 1), again(revision - 1), "it is made once");
            let (first, second) = (encoded.whole(&publisher), encoded.whole(&publisher));
            assert!(Arc::ptr_eq(&first, &second));
            assert_eq!(first.objects(), 1);
        }
        let last = encoded.whole(&publisher);
        commit(&mut publisher, 40);
        assert!(!Arc::ptr_eq(&last, &encoded.whole(&publisher)));
        drop(last);
        assert!(locked(&encoded.state).whole.upgrade().is_none(), "nobody is sent it any more");
    }
}
