//! Turns taken in order.
//!
//! One cycle of turns is written down in advance, and one counter, shared by all
//! workers of a proxy, says whose turn it is: exact, whatever the number of workers.
//! Plain round robin gives every backend one turn; [`super::weighted`] repeats them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Candidate, Loads, PickContext, cycle::Cycle, lists, slot_table::SlotTable};

/// Goes through a cycle of turns.
pub(super) struct RoundRobin {
    turns: SlotTable,
    cycle: Cycle,
    backends: usize,
}

impl RoundRobin {
    /// One turn for each candidate.
    pub(super) fn in_order(members: &[Candidate<'_>]) -> Self {
        let slots: Vec<_> = members.iter().map(|member| member.slot).collect();
        Self::with_turns(&slots, members.len())
    }

    /// A cycle in which each of `backends` backends has at least one turn.
    pub(super) fn with_turns(turns: &[u32], backends: usize) -> Self {
        Self { turns: SlotTable::new(turns), cycle: Cycle::new(turns.len() as u64), backends }
    }

    pub(super) fn len(&self) -> usize {
        self.backends
    }

    /// How many turns a cycle has.
    pub(super) fn cycle(&self) -> u64 {
        self.cycle.length()
    }

    /// Takes a turn: which one it is, and whose.
    #[inline]
    pub(super) fn take(&self, cursor: &AtomicU64) -> Option<(usize, u32)> {
        if self.backends == 0 {
            return None;
        }
        // Relaxed: the cursor orders turns among themselves and guards no other data.
        let turn = self.cycle.turn(cursor.fetch_add(1, Ordering::Relaxed));
        #[expect(clippy::cast_possible_truncation, reason = "below the length of a table")]
        let turn = turn as usize;
        Some((turn, self.turns.slot(turn)))
    }

    #[inline]
    pub(super) fn pick<L: Loads>(&self, context: &PickContext<'_, L>) -> Option<u32> {
        let (turn, slot) = self.take(context.cursor)?;
        if context.excludes(slot) {
            return self.next_allowed(turn, context.excluded);
        }
        Some(slot)
    }

    /// The next backend in turn after one that is excluded. The cursor stays: whoever
    /// comes next must not lose a turn to this request.
    #[cold]
    fn next_allowed(&self, excluded_turn: usize, excluded: &[u32]) -> Option<u32> {
        (excluded_turn + 1..self.turns.len())
            .chain(0..excluded_turn)
            .map(|turn| self.turns.slot(turn))
            .find(|&slot| !lists(excluded, slot))
    }
}
