//! A pool as it was compiled last, for the next time.

use std::sync::Arc;

use lb_core::model::{Algorithm, BackendEntry, PoolEntry};

use super::super::{BackendState, PoolConfig, facts::Facts};

/// What a pool was compiled from, and to.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) entry: Arc<PoolEntry>,
    pub(super) config: Arc<PoolConfig>,
    /// Of its backends, by slot.
    pub(super) facts: Vec<Facts>,
    /// What the picker was built from, slots and weights.
    pub(super) ready: Vec<(u32, u16)>,
    /// Whether its fallback pool had a backend that is well.
    pub(super) has_spare: bool,
    /// How many requests had failed ([`Trouble::failures`](super::Trouble::failures)) when no backend was failing or avoided:
    /// while it is as many, of thousands none needs to be looked into.
    pub(super) quiet_at: Option<u64>,
}

/// A backend as it was compiled before.
pub(super) struct Known<'a> {
    pub(super) entry: &'a Arc<BackendEntry>,
    pub(super) state: &'a Arc<BackendState>,
    pub(super) facts: &'a Facts,
}

impl Compiled {
    /// The backends with what they were compiled to, in order of their ids.
    pub(super) fn members(&self) -> impl Iterator<Item = Known<'_>> {
        let members =
            self.entry.backends.values().zip(self.config.backends.iter()).zip(&self.facts);
        members.map(|((entry, state), facts)| Known { entry, state, facts })
    }

    /// Whether it may have to be otherwise although nothing was configured, now that so many
    /// requests have failed.
    pub(super) fn is_unsettled(&self, failures: u64) -> bool {
        self.config.caution.is_some()
            || self.quiet_at != Some(failures) && !are_quiet(&self.config.backends)
    }

    /// Whether a picker would be built from the same: then the cursor stays, too.
    pub(super) fn has_members(
        &self,
        algorithm: Algorithm,
        backends: &[Arc<BackendState>],
        ready: &[(u32, u16)],
    ) -> bool {
        let same = |&(before, now): &(&(u32, u16), &(u32, u16))| {
            let (was, is) = (&self.config.backends[before.0 as usize], &backends[now.0 as usize]);
            before.1 == now.1 && (Arc::ptr_eq(was, is) || was.identity == is.identity)
        };
        self.entry.pool.algorithm == algorithm
            && self.ready.len() == ready.len()
            && self.ready.iter().zip(ready).all(|pair| same(&pair))
    }
}

/// The states of a pool's backends as they come, by slot. While they are the former ones nothing is
/// copied: of thousands each would be fetched for its count.
pub(super) struct States<'a> {
    former: &'a Arc<[Arc<BackendState>]>,
    /// How many are as before.
    same: usize,
    /// All, from the first on that is another.
    others: Option<Vec<Arc<BackendState>>>,
}

impl<'a> States<'a> {
    pub(super) fn after(former: &'a Arc<[Arc<BackendState>]>) -> Self {
        Self { former, same: 0, others: None }
    }

    pub(super) fn push(&mut self, state: &Arc<BackendState>) {
        let is_same = |former: &Arc<BackendState>| Arc::ptr_eq(former, state);
        match &mut self.others {
            Some(others) => others.push(Arc::clone(state)),
            None if self.former.get(self.same).is_some_and(is_same) => self.same += 1,
            None => {
                let mut others = Vec::with_capacity(self.former.len() + 1);
                others.extend_from_slice(&self.former[..self.same]);
                others.push(Arc::clone(state));
                self.others = Some(others);
            }
        }
    }

    pub(super) fn finish(self) -> Arc<[Arc<BackendState>]> {
        match self.others {
            Some(others) => others.into(),
            None if self.same == self.former.len() => Arc::clone(self.former),
            None => self.former[..self.same].into(),
        }
    }
}

/// Whether no backend is failing or avoided.
pub(super) fn are_quiet(backends: &[Arc<BackendState>]) -> bool {
    !backends.iter().any(|backend| backend.is_failing() || backend.is_avoided())
}
