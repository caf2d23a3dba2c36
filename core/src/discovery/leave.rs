//! When backends that no source tells any more are removed: after what replaces them.
//!
//! Three things hold a removal up. A source that would take over half of a pool must say
//! so twice in a row, since a half-written file or a broken zone looks just like that.
//! New backends are given the time of a first check, so that a pool that is replaced as a
//! whole is never without one that can serve. And while what is gone still serves and
//! nothing else does, it stays: an answer that is wrong must not cost all traffic.

use std::time::Duration;

use super::Member;

/// How long removals wait for the first verdicts about what is new.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Backends of one source that are to be removed.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// How many.
    pub count: usize,
    /// Backends of the pool when the answer that leaves them out came first.
    pub pool_size: usize,
    /// How often in a row the source has given that answer.
    pub repeats: u32,
    /// Since when they are left out.
    pub waited: Duration,
}

/// Why a removal waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// The source must say it again.
    Confirmation,
    /// New backends have no verdict yet.
    FirstChecks,
    /// Nothing else can serve.
    LastServing,
}

/// Whether backends may be removed now. `gone` are all that leave the pool, `staying` all
/// others, with what was just added.
#[must_use]
pub fn may_leave(leaving: Leaving, gone: &[&Member], staying: &[&Member]) -> Option<Wait> {
    if leaving.pool_size >= 2 && 2 * leaving.count > leaving.pool_size && leaving.repeats < 2 {
        return Some(Wait::Confirmation);
    }
    let unjudged = staying.iter().any(|member| member.is_unjudged());
    if unjudged && leaving.waited < PATIENCE {
        return Some(Wait::FirstChecks);
    }
    let serves = |members: &[&Member]| {
        members.iter().any(|member| member.serves() && member.backend.weight.get() > 0)
    };
    let left_alone = serves(gone) && !serves(staying);
    left_alone.then_some(Wait::LastServing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        discovery::{Answered, Found, changes},
        model::{AdminState, Health, PoolName},
    };

    fn member(health: Health) -> Member {
        let source = "dns:web.test:80".parse().unwrap();
        let found = [Found::new("10.0.0.1:80".parse().unwrap())];
        let answered = Answered { source: &source, found: Some(&found) };
        let changes = changes(&PoolName::default_pool(), &[answered], &[], |_| false);
        Member { backend: changes.puts[0].clone(), health }
    }

    const SOON: Leaving =
        Leaving { count: 1, pool_size: 4, repeats: 1, waited: Duration::from_secs(1) };

    #[test]
    fn over_half_of_a_pool_leaves_only_when_the_source_says_so_twice() {
        let up = member(Health::Up);
        let wait = |leaving| may_leave(leaving, &[&up], &[&up]);
        let over_half = Leaving { count: 3, ..SOON };
        assert_eq!(wait(over_half), Some(Wait::Confirmation));
        assert_eq!(wait(Leaving { repeats: 2, ..over_half }), None);
        assert_eq!(wait(Leaving { count: 2, ..SOON }), None);
        assert_eq!(wait(Leaving { count: 1, pool_size: 1, ..SOON }), None, "a single one");
    }

    #[test]
    fn new_backends_get_the_time_of_a_first_check() {
        let (up, new) = (member(Health::Up), member(Health::Unknown));
        let wait = |leaving| may_leave(leaving, &[&up], &[&up, &new]);
        assert_eq!(wait(SOON), Some(Wait::FirstChecks));
        assert_eq!(wait(Leaving { waited: PATIENCE, ..SOON }), None);
    }

    #[test]
    fn what_serves_stays_while_nothing_else_does() {
        let (up, down) = (member(Health::Up), member(Health::Down));
        assert_eq!(may_leave(SOON, &[&up], &[&down]), Some(Wait::LastServing));
        assert_eq!(may_leave(SOON, &[&down], &[&down]), None, "it serves no more than the others");
        let mut disabled = member(Health::Up);
        disabled.backend.admin_state = AdminState::Disabled;
        assert_eq!(may_leave(SOON, &[&up], &[&disabled]), Some(Wait::LastServing));
    }
}
