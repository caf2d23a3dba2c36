//! The backends of a pool, for snapshots that differ in one of thousands.

use std::{fmt, sync::Arc};

use super::BackendEntry;
use crate::model::BackendId;

/// How many backends a run holds at most; one that would hold more is two.
const RUN_MAX: usize = 128;

/// The backends of a pool, in order of their ids, as people count.
///
/// They are kept in runs that copies share: a copy costs one count for a run, and a
/// change one run, where a map's copy goes through what is known of every backend.
#[derive(Clone, Default)]
pub struct Backends {
    /// None is empty.
    runs: Vec<Arc<Vec<Place>>>,
    count: usize,
}

/// A backend in its place. The id is here, too: who only goes through the ids, or looks for one,
/// fetches no entry.
type Place = (BackendId, Arc<BackendEntry>);

impl Backends {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them with their ids, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&BackendId, &Arc<BackendEntry>)> {
        self.runs.iter().flat_map(|run| run.iter()).map(|(id, entry)| (id, entry))
    }

    /// All of them, in their order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<BackendEntry>> {
        self.iter().map(|(_, entry)| entry)
    }

    /// Their ids, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &BackendId> {
        self.iter().map(|(id, _)| id)
    }

    /// The one of this id.
    #[must_use]
    pub fn get(&self, id: &BackendId) -> Option<&Arc<BackendEntry>> {
        let (run, place) = self.find(id)?;
        Some(&self.runs[run][place].1)
    }

    /// Whether there is one of this id.
    #[must_use]
    pub fn contains_key(&self, id: &BackendId) -> bool {
        self.get(id).is_some()
    }

    /// Adds it, in place of the one of the same id.
    pub fn insert(&mut self, entry: Arc<BackendEntry>) {
        let id = entry.backend.id.clone();
        let at = self.run_of(&id);
        let Some(run) = self.runs.get_mut(at) else {
            self.runs.push(Arc::new(vec![(id, entry)]));
            self.count = 1;
            return;
        };
        let run = Arc::make_mut(run);
        match place_in(run, &id) {
            Ok(place) => run[place].1 = entry,
            Err(place) => {
                run.insert(place, (id, entry));
                self.count += 1;
            }
        }
        if run.len() > RUN_MAX {
            // What is added in order, as a whole state is, leaves full runs behind.
            let is_last = at + 1 == self.runs.len();
            let run = Arc::make_mut(&mut self.runs[at]);
            let rest = run.split_off(if is_last { RUN_MAX } else { RUN_MAX / 2 });
            run.shrink_to_fit();
            self.runs.insert(at + 1, Arc::new(rest));
        }
    }

    /// Takes the one of this id out.
    pub fn remove(&mut self, id: &BackendId) -> Option<Arc<BackendEntry>> {
        let (at, place) = self.find(id)?;
        let run = Arc::make_mut(&mut self.runs[at]);
        let removed = run.remove(place);
        if run.is_empty() {
            self.runs.remove(at);
        }
        self.count -= 1;
        Some(removed.1)
    }

    /// The one of this id, to change anything of it but its id.
    pub(super) fn get_mut(&mut self, id: &BackendId) -> Option<&mut BackendEntry> {
        let (run, place) = self.find(id)?;
        Some(Arc::make_mut(&mut Arc::make_mut(&mut self.runs[run])[place].1))
    }

    /// The run and the place in it of this id.
    fn find(&self, id: &BackendId) -> Option<(usize, usize)> {
        let run = self.run_of(id);
        Some((run, place_in(self.runs.get(run)?, id).ok()?))
    }

    /// The run that holds this id if any does: the last one that does not begin after it,
    /// or the first.
    fn run_of(&self, id: &BackendId) -> usize {
        self.runs.partition_point(|run| run[0].0 <= *id).saturating_sub(1)
    }
}

fn place_in(run: &[Place], id: &BackendId) -> Result<usize, usize> {
    run.binary_search_by(|(of_place, _)| of_place.cmp(id))
}

impl FromIterator<Arc<BackendEntry>> for Backends {
    fn from_iter<T: IntoIterator<Item = Arc<BackendEntry>>>(entries: T) -> Self {
        let mut backends = Self::default();
        entries.into_iter().for_each(|entry| backends.insert(entry));
        backends
    }
}

/// Whatever the runs are.
impl PartialEq for Backends {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.values().eq(other.values())
    }
}

impl Eq for Backends {}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Backend, PoolName, Weight};

    fn id(number: u16) -> BackendId {
        BackendId::new(&format!("b{number}")).unwrap()
    }

    fn entry(number: u16, weight: u16) -> Arc<BackendEntry> {
        let address = "10.0.0.1:80".parse().unwrap();
        let backend = Backend {
            weight: Weight::new(u32::from(weight)).unwrap(),
            ..Backend::new(id(number), PoolName::default_pool(), address)
        };
        Arc::new(BackendEntry { backend, status: None })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u16),
        Remove(u16),
        Change(u16, u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (number, weight) = (0_u16..400, 1_u16..200);
        prop_oneof![
            4 => (number.clone(), weight.clone()).prop_map(|(number, weight)| Step::Insert(number, weight)),
            1 => number.clone().prop_map(Step::Remove),
            1 => (number, weight).prop_map(|(number, weight)| Step::Change(number, weight)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// They are what an ordered map is, and a copy stays what it was.
        #[test]
        fn they_are_what_a_map_is(
            ascending in 0_u16..400,
            steps in prop::collection::vec(step(), 0..300),
            copied_at in 0_usize..300,
        ) {
            let mut backends: Backends = (0..ascending).map(|number| entry(number, 1)).collect();
            let keyed = |entry: &Arc<BackendEntry>| (entry.backend.id.clone(), Arc::clone(entry));
            let mut map: BTreeMap<BackendId, Arc<BackendEntry>> = backends.values().map(keyed).collect();
            let (mut copy, mut copy_of_map) = (backends.clone(), map.clone());
            for (index, step) in steps.into_iter().enumerate() {
                if index == copied_at {
                    (copy, copy_of_map) = (backends.clone(), map.clone());
                }
                match step {
                    Step::Insert(number, weight) => {
                        let entry = entry(number, weight);
                        map.insert(entry.backend.id.clone(), Arc::clone(&entry));
                        backends.insert(entry);
                    }
                    Step::Remove(number) => {
                        prop_assert_eq!(backends.remove(&id(number)), map.remove(&id(number)));
                    }
                    Step::Change(number, weight) => {
                        let other = entry(number, weight);
                        if let Some(changed) = backends.get_mut(&other.backend.id) {
                            changed.backend.weight = other.backend.weight;
                        }
                        if let Some(changed) = map.get_mut(&other.backend.id) {
                            *changed = other;
                        }
                    }
                }
            }
            for (backends, map) in [(&backends, &map), (&copy, &copy_of_map)] {
                prop_assert_eq!(backends.len(), map.len());
                prop_assert_eq!(backends.is_empty(), map.is_empty());
                prop_assert!(backends.values().eq(map.values()));
                prop_assert!(backends.keys().eq(map.keys()));
                prop_assert!(backends.runs.iter().all(|run| (1..=RUN_MAX).contains(&run.len())));
                for number in 0..400 {
                    let id = &id(number);
                    prop_assert_eq!(backends.get(id), map.get(id));
                    prop_assert_eq!(backends.contains_key(id), map.contains_key(id));
                }
                // However they came to be.
                let anew: Backends = map.values().rev().cloned().collect();
                prop_assert_eq!(backends, &anew);
            }
        }
    }

    #[test]
    fn a_change_copies_one_run_and_shares_the_others() {
        let before: Backends = (0..1000).map(|number| entry(number, 1)).collect();
        let mut after = before.clone();
        after.insert(entry(500, 7));
        let shared = before.runs.iter().zip(&after.runs).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!((before.runs.len(), shared.count()), (8, 7));
    }
}
