//! Units that cannot be split evenly: who has them, and for how long.

use std::time::{Duration, Instant};

use super::{Report, Terms, book::Book, fair::Shares};

/// What is to be lent to one holder.
pub(super) struct Lending<H> {
    pub(super) holder: H,
    pub(super) amount: u64,
    pub(super) safe: u64,
    pub(super) carried: bool,
    pub(super) counted: u64,
    /// Of what is in use there, what does not come back.
    pub(super) kept: u64,
    pub(super) report: Report,
    pub(super) extra_since: Option<Instant>,
    pub(super) served_at: Instant,
    /// What it gets at least, if it gets less than it asks for.
    pub(super) level: Option<u64>,
}

impl<H: Clone> Lending<H> {
    /// Nothing yet.
    pub(super) fn of(holder: &H, book: &Book, counted: u64) -> Self {
        Self {
            holder: holder.clone(),
            amount: 0,
            safe: 0,
            carried: false,
            counted,
            kept: book.kept(),
            report: *book.report(),
            extra_since: book.extra_since,
            served_at: book.served_at,
            level: None,
        }
    }

    /// What it has, and no more.
    pub(super) fn prolonging(holder: &H, book: &Book, quantity: u64) -> Self {
        let Report { holds, safe, .. } = *book.report();
        let (amount, safe) = (holds.min(quantity), safe.min(quantity));
        Self { amount, safe, carried: true, ..Self::of(holder, book, 0) }
    }
}

/// How long each may keep one of the units that go round, so that all who want one have had it
/// within [`Terms::ROUND`].
pub(super) fn round_of_turns<H>(lendings: &[Lending<H>], units: u64) -> Duration {
    let wanting = lendings.iter().filter(|lending| lending.level.is_some()).count();
    Terms::ROUND.mul_f64(units as f64 / wanting.max(1) as f64)
}

/// Adds the units that cannot be split evenly, one each: to those whose turn it still is,
/// then to those who have waited longest. When all demands are met, to those who have
/// them already.
pub(super) fn hand_round<H>(
    lendings: &mut [Lending<H>],
    shares: &Shares,
    is_in_turn: impl Fn(Instant) -> bool,
) {
    let mut order: Vec<usize> = (0..lendings.len())
        .filter(|&index| shares.all_met || lendings[index].level.is_some())
        .collect();
    if shares.all_met {
        order.sort_by_key(|&index| lendings[index].counted <= lendings[index].amount);
    } else {
        order.sort_by_key(|&index| {
            let lending = &lendings[index];
            match lending.extra_since {
                Some(since) if is_in_turn(since) => (0, since),
                None => (1, lending.served_at),
                Some(since) => (2, since),
            }
        });
    }
    for &index in order.iter().take(usize::try_from(shares.rest).unwrap_or(usize::MAX)) {
        lendings[index].amount += 1;
    }
}
