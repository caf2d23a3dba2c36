//! How many backends of a pool may be out at once.
//!
//! Breakers and outlier detection each see a reason to spare one backend its requests.
//! Together they must not spare all of them: the load of those that are out falls on the
//! rest, which then fail as well. So at most a third of a pool is out, counted over the
//! fleet, but one of two may be; and never the last that can serve. Whoever was out
//! first stays out; what comes later is refused, and says why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::model::{BackendId, EjectedBy};

/// How many of `backends` may be out: a third, at least one of two or more.
#[must_use]
pub fn cap(backends: usize) -> usize {
    match backends {
        0 | 1 => 0,
        _ => (backends / 3).max(1),
    }
}

/// What a pool has while somebody asks to take one of its backends out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pool {
    /// Its enabled backends.
    pub enabled: usize,
    /// Whether any other than the one in question can serve: is enabled, up, and not out.
    pub others_serve: bool,
}

/// The backends of one pool that are out.
#[derive(Clone, Debug, Default)]
pub struct Ejections {
    out: BTreeMap<BackendId, Ejected>,
    /// Counts those taken out, so that it is known who was first.
    turn: u64,
}

#[derive(Clone, Debug)]
struct Ejected {
    turn: u64,
    by: BTreeSet<EjectedBy>,
}

impl Ejections {
    /// Nothing is out.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a backend out. One that is out already, by whatever, stays out by this
    /// too.
    pub fn admit(&mut self, id: &BackendId, by: EjectedBy, pool: Pool) -> Result<(), Refused> {
        if let Some(ejected) = self.out.get_mut(id) {
            ejected.by.insert(by);
            return Ok(());
        }
        if !pool.others_serve {
            return Err(Refused::LastOne);
        }
        let limit = cap(pool.enabled);
        if self.out.len() >= limit {
            return Err(Refused::CapReached { out: self.out.len(), cap: limit });
        }
        self.turn += 1;
        let ejected = Ejected { turn: self.turn, by: BTreeSet::from([by]) };
        self.out.insert(id.clone(), ejected);
        Ok(())
    }

    /// Ends an ejection; returns whether the backend is back, which it is when nothing else
    /// keeps it out.
    pub fn release(&mut self, id: &BackendId, by: EjectedBy) -> bool {
        let Some(ejected) = self.out.get_mut(id) else { return false };
        let was_one = ejected.by.remove(&by);
        if !ejected.by.is_empty() {
            return false;
        }
        self.out.remove(id);
        was_one
    }

    /// Keeps to a pool that has changed: whoever left it is forgotten, and if those that
    /// are out are now too many, the last ones come back. Returns the latter, the last
    /// first; their breakers and outliers are to be told.
    pub fn keep_to(&mut self, enabled: &BTreeSet<BackendId>) -> Vec<BackendId> {
        self.out.retain(|id, _| enabled.contains(id));
        let limit = cap(enabled.len());
        let mut back = Vec::new();
        while self.out.len() > limit
            && let Some(last) = self.out.iter().max_by_key(|(_, ejected)| ejected.turn)
        {
            let id = last.0.clone();
            self.out.remove(&id);
            back.push(id);
        }
        back
    }

    /// Whether a backend is out.
    #[must_use]
    pub fn is_out(&self, id: &BackendId) -> bool {
        self.out.contains_key(id)
    }

    /// Those that are out.
    pub fn iter(&self) -> impl Iterator<Item = &BackendId> {
        self.out.keys()
    }
}

/// A backend that there is a reason to take out stays in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// No other backend of the pool can serve.
    LastOne,
    /// As many are out as may be.
    CapReached {
        /// How many are out.
        out: usize,
        /// How many may be.
        cap: usize,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LastOne => write!(f, "no other backend of the pool can serve"),
            Self::CapReached { out, cap } => {
                let are =
                    if *out == 1 { "backend of the pool is" } else { "backends of the pool are" };
                write!(f, "{out} {are} out, and at most {cap} may be")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> BackendId {
        BackendId::new(&format!("backend{number}")).unwrap()
    }

    fn ids(count: usize) -> BTreeSet<BackendId> {
        (0..count).map(id).collect()
    }

    /// A pool in which everything that is not out is up.
    fn healthy(enabled: usize, out: usize) -> Pool {
        Pool { enabled, others_serve: enabled - out > 1 }
    }

    #[test]
    fn a_third_may_be_out_and_one_of_two() {
        let caps: Vec<usize> = (0..10).map(cap).collect();
        assert_eq!(caps, [0, 0, 1, 1, 1, 1, 2, 2, 2, 3]);
    }

    #[test]
    fn who_is_out_first_stays_and_who_comes_later_hears_why() {
        let mut ejections = Ejections::new();
        assert_eq!(ejections.admit(&id(0), EjectedBy::Outlier, healthy(3, 0)), Ok(()));
        let refused = ejections.admit(&id(1), EjectedBy::Breaker, healthy(3, 1));
        assert_eq!(refused, Err(Refused::CapReached { out: 1, cap: 1 }));
        assert!(ejections.is_out(&id(0)) && !ejections.is_out(&id(1)));
        assert!(refused.unwrap_err().to_string().contains("at most 1"));
        // A second cause takes no second place.
        assert_eq!(ejections.admit(&id(0), EjectedBy::Breaker, healthy(3, 1)), Ok(()));
        assert!(!ejections.release(&id(0), EjectedBy::Outlier) && ejections.is_out(&id(0)));
        assert!(ejections.release(&id(0), EjectedBy::Breaker));
        assert_eq!(ejections.admit(&id(1), EjectedBy::Breaker, healthy(3, 0)), Ok(()));
    }

    #[test]
    fn the_last_that_can_serve_stays() {
        let mut ejections = Ejections::new();
        let pool = Pool { enabled: 9, others_serve: false };
        assert_eq!(ejections.admit(&id(0), EjectedBy::Breaker, pool), Err(Refused::LastOne));
    }

    #[test]
    fn a_pool_that_shrinks_takes_the_last_ones_back() {
        let mut ejections = Ejections::new();
        for (out, number) in [4, 2, 7].into_iter().enumerate() {
            ejections.admit(&id(number), EjectedBy::Breaker, healthy(9, out)).unwrap();
        }
        assert_eq!(ejections.keep_to(&ids(8)), [id(7)]);
        assert_eq!(ejections.keep_to(&ids(3)), []);
        assert_eq!(ejections.iter().collect::<Vec<_>>(), [&id(2)], "4 has left the pool");
        assert_eq!(ejections.keep_to(&BTreeSet::from([id(2)])), [id(2)]);
    }

    proptest! {
        /// Verdicts come and go, backends too; whoever asks is taken out or not. No step
        /// leaves a pool without a server that had one, nor too many out.
        #[test]
        fn taking_out_never_empties_a_pool(
            steps in prop::collection::vec((0_usize..9, 0_u8..6), 1..200),
        ) {
            let (mut ejections, mut up, mut enabled) = (Ejections::new(), ids(9), ids(9));
            for (number, what) in steps {
                let id = id(number);
                let serving = |ejections: &Ejections, up: &BTreeSet<BackendId>, enabled: &BTreeSet<BackendId>| {
                    enabled.iter().filter(|id| up.contains(id) && !ejections.is_out(id)).count()
                };
                let before = serving(&ejections, &up, &enabled);
                let cause = if what == 0 { EjectedBy::Breaker } else { EjectedBy::Outlier };
                match what {
                    0 | 1 if enabled.contains(&id) => {
                        let own = usize::from(up.contains(&id) && !ejections.is_out(&id));
                        let pool = Pool { enabled: enabled.len(), others_serve: before > own };
                        let admitted = ejections.admit(&id, cause, pool);
                        let after = serving(&ejections, &up, &enabled);
                        prop_assert!(before == 0 || after > 0);
                        prop_assert_eq!(admitted.is_ok(), ejections.is_out(&id));
                    }
                    2 => {
                        ejections.release(&id, EjectedBy::Breaker);
                        ejections.release(&id, EjectedBy::Outlier);
                    }
                    3 => {
                        up.remove(&id);
                    }
                    4 => {
                        up.insert(id);
                    }
                    _ => {
                        if !enabled.remove(&id) {
                            enabled.insert(id);
                        }
                        ejections.keep_to(&enabled);
                    }
                }
                prop_assert!(ejections.iter().count() <= cap(enabled.len()));
            }
        }
    }
}
