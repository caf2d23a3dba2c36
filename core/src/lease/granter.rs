//! The control plane's end: who may use how much.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    ops::RangeBounds,
    time::{Duration, Instant},
};

use super::{
    AMOUNT_MAX, Grant, Report, Term, Terms, Unit,
    book::Book,
    fair::shares_beside,
    rate::reserved,
    turns::{Lending, hand_round, round_of_turns},
};

/// Lends one quantity to holders of type `H`, which names one *start* of a proxy process:
/// another start counts its reports anew and holds nothing.
#[derive(Debug)]
pub struct Granter<H> {
    term: Term,
    terms: Terms,
    quantity: u64,
    /// Until then only what holders have is lent.
    carries_until: Instant,
    /// What all those had together that have applied a grant of this granter, when they had.
    found: u64,
    /// When what a former granter may have lent has ended.
    former_ends: Instant,
    /// A shorter `hold`, and when it begins to count.
    shorter: Option<(Duration, Instant)>,
    grants: u64,
    /// All have what they are to have, since the last call of [`Self::grant`].
    is_settled: bool,
    books: BTreeMap<H, Book>,
}

/// What may have been lent before a granter started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Former {
    /// Nothing: the quantity is new.
    None,
    /// Nothing that is known of, though the store may have been lost: for one lease only what
    /// holders report is lent, and for as long as after [`Self::MayHaveLent`] if one of
    /// them has had a grant of another granter.
    Unknown,
    /// Anything: a granter of the same quantity may have run before, though it has
    /// stopped. For `lease + hold + margin` only what holders report is lent: to each what it has,
    /// until it has applied that, and after that to those that have by their need. What others may
    /// have is no concern of that, since together they have no more than before.
    MayHaveLent,
}

/// What came of a report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// Noted; the next regular [`Granter::grant`] answers it.
    Noted,
    /// Something was returned, or more is needed than is lent: call [`Granter::grant`] at
    /// once.
    Urgent,
    /// A later report is known already.
    Stale,
    /// The holder has heard of a granter with this larger term. Whoever is sure to be the
    /// only one starts anew with a term above it and [`Former::MayHaveLent`]; others stop.
    Outranked(Term),
}

impl<H: Clone + Ord> Granter<H> {
    /// A granter that knows no holder yet.
    #[must_use]
    pub fn new(term: Term, quantity: u64, terms: Terms, former: Former, now: Instant) -> Self {
        let former_ends = now + terms.counted_for();
        let carries_until = match former {
            Former::None => now + terms.gather(),
            Former::Unknown => now + terms.lease + terms.margin,
            Former::MayHaveLent => former_ends,
        };
        Self {
            term,
            terms,
            quantity: quantity.min(AMOUNT_MAX),
            carries_until,
            found: 0,
            former_ends,
            shorter: None,
            grants: 0,
            is_settled: false,
            books: BTreeMap::new(),
        }
    }

    /// Of this granter.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Changes the quantity. A smaller one takes effect as leases are replaced, at the
    /// latest when they end; slots in use are not taken away.
    pub fn set_quantity(&mut self, quantity: u64) {
        let quantity = quantity.min(AMOUNT_MAX);
        self.is_settled &= quantity == self.quantity;
        self.quantity = quantity;
    }

    /// Numbers the grants from here on, if they are not further already: a granter that
    /// follows another of the same quantity and term must not be taken for late.
    pub fn number_after(&mut self, grants: u64) {
        self.grants = self.grants.max(grants);
    }

    /// The number of the last grant.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.grants
    }

    /// Changes how long what was begun under a lease may last beyond it. A longer time
    /// counts at once; a shorter one when what was begun under the former has ended.
    pub fn set_hold(&mut self, hold: Duration, now: Instant) {
        self.is_settled = false;
        if hold == self.terms.hold {
            self.shorter = None;
        } else if hold > self.terms.hold {
            self.terms.hold = hold;
            self.shorter = None;
        } else if self.shorter.is_none_or(|(shorter, _)| shorter != hold) {
            self.shorter = Some((hold, now + self.terms.counted_for()));
        }
    }

    /// Presumes that this holder uses `safe` until it is heard of or removed: it has a
    /// safe share without ever having had a lease.
    pub fn presume(&mut self, holder: &H, safe: u64, now: Instant) {
        if !self.books.contains_key(holder) {
            self.books.insert(holder.clone(), Book::presumed(safe, now));
            self.is_settled = false;
        }
    }

    /// Frees at once what is counted for a holder. Only for a process that is known to
    /// have ended with nothing in use; one that merely fell silent is forgotten by itself
    /// after `lease + hold + margin`.
    pub fn remove(&mut self, holder: &H) {
        self.books.remove(holder);
        self.is_settled = false;
    }

    /// Ends the wait of [`Former::MayHaveLent`]: every process to which a former granter
    /// may have lent was heard from, or is known to have ended with nothing in use. Another one
    /// that is heard of after all, with a grant of that, begins it again.
    pub fn former_is_accounted_for(&mut self, now: Instant) {
        self.carries_until = self.carries_until.min(now);
    }

    /// Whether it still waits for that, and so lends nothing but what holders have.
    #[must_use]
    pub fn carries(&self, now: Instant) -> bool {
        now < self.carries_until
    }

    /// Takes in what a holder reports.
    pub fn hear(&mut self, from: &H, report: &Report, now: Instant) -> Heard {
        if report.term > self.term {
            return Heard::Outranked(report.term);
        }
        if report.seq == 0 {
            return Heard::Stale; // No holder counts from there.
        }
        self.is_settled = false;
        let counted_for = self.terms.counted_for();
        if report.term != Term(0) && report.term < self.term && !self.books.contains_key(from) {
            // There was a former granter, whatever is known of it, and others may have grants of
            // it, too, who were not heard of yet.
            if !self.carries(now) {
                let known = self.books.values().filter(|book| book.has_applied(self.term));
                self.found = known.map(|book| book.counted(counted_for, now)).sum();
            }
            self.carries_until = self.carries_until.max(self.former_ends);
        }
        let book = self.books.entry(from.clone()).or_insert_with(|| Book::presumed(0, now));
        let (counted, demand) = (book.counted(counted_for, now), book.report().demand);
        let former_term = book.report().term;
        let was_carried = !book.is_presumed() && !book.has_applied(self.term);
        if !book.hear(&report.bounded(), self.term, now) {
            return Heard::Stale;
        }
        if was_carried && book.has_applied(self.term) {
            let Report { holds, in_use, .. } = *book.report();
            // What is in use beyond that was counted by the former granter, too, if there was one.
            let has = if former_term == Term(0) { holds } else { holds.max(in_use) };
            self.found = AMOUNT_MAX.min(self.found + has);
        }
        let returned = book.counted(counted_for, now) < counted;
        if returned || report.demand > demand.max(book.granted.0) {
            Heard::Urgent
        } else {
            Heard::Noted
        }
    }

    /// Takes in that a holder repeats its latest report, in a frame that came in now.
    pub fn hear_again(&mut self, from: &H, now: Instant) {
        if let Some(book) = self.books.get_mut(from) {
            book.hear_again(now);
        }
    }

    /// Who is to be asked for a report although it has nothing new to say: to be sent with every
    /// round of grants, until it comes.
    pub fn asked(&self) -> impl Iterator<Item = &H> {
        self.books.iter().filter(|(_, book)| book.wants_report()).map(|(holder, _)| holder)
    }

    /// The last of these holders in their order, and the number of its latest report.
    pub fn last_heard(&self, holders: impl RangeBounds<H>) -> Option<(&H, u64)> {
        let (holder, book) = self.books.range(holders).next_back()?;
        Some((holder, book.report().seq))
    }

    /// What to send now, and to whom: an answer to every new report, and a new grant to
    /// whoever is to get another share. To be called every 100 to 250 ms, and when
    /// [`Granter::hear`] says so; only while this process is sure to be the only one that
    /// grants. A grant that is not sent costs nothing but time.
    pub fn grant(&mut self, now: Instant) -> Vec<(H, Grant)> {
        let lease = self.terms.lease;
        if self.is_settled && self.books.values().all(|book| book.rests(lease, now)) {
            return Vec::new();
        }
        if let Some((hold, from)) = self.shorter
            && now >= from
        {
            self.terms.hold = hold;
            self.shorter = None;
        }
        self.forget_over(now);
        if matches!(self.terms.unit, Unit::Whole { .. }) {
            self.books.values_mut().for_each(|book| book.look_at_kept(now));
        }
        let mut lendings = self.targets(now);
        // Otherwise what goes round moves on with time.
        let mut is_settled = !self.carries(now)
            && self.shorter.is_none()
            && lendings.iter().all(|lending| lending.level.is_none());
        self.share_out(&mut lendings, now);
        lendings.extend(self.carried(now));
        let proxies = (!self.carries(now)).then(|| self.proxies());
        is_settled &= lendings.len() == self.books.len();
        let mut sent = Vec::with_capacity(lendings.len());
        for Lending { holder, amount, safe, carried, .. } in lendings {
            let Some(book) = self.books.get_mut(&holder) else { continue };
            if !book.unanswered && book.granted == (amount, safe) {
                continue;
            }
            self.grants += 1;
            let grant = Grant {
                term: self.term,
                id: self.grants,
                answers: book.report().seq,
                lease: self.terms.lease,
                amount,
                safe,
                carried,
                proxies,
            };
            book.lend(&grant);
            sent.push((holder, grant));
        }
        self.is_settled = is_settled && sent.is_empty();
        sent
    }

    /// Forgets the holders of which nothing can be in use any more.
    pub(super) fn forget_over(&mut self, now: Instant) {
        let counted_for = self.terms.counted_for();
        self.books.retain(|_, book| !book.is_over(counted_for, now));
    }

    fn proxies(&self) -> NonZeroU32 {
        let count = u32::try_from(self.books.len()).unwrap_or(u32::MAX);
        NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
    }

    /// Replaces what each is to have by what it can have now: no more than it is counted
    /// for already, and what nobody is counted for.
    fn share_out(&mut self, lendings: &mut [Lending<H>], now: Instant) {
        let (carries, counted_for) = (self.carries(now), self.terms.counted_for());
        let quantity = self.to_lend(now);
        let all_counted: u64 =
            self.taking_part(now).map(|(_, book)| book.counted(counted_for, now)).sum();
        let all_counted = all_counted + self.in_use_anew(now);
        let mut free = quantity.saturating_sub(all_counted);
        let safe_counted: u64 = self.books.values().map(Book::counted_safe).sum();
        let mut safe_free = self.quantity.saturating_sub(safe_counted);
        let even = self.quantity / u64::from(self.proxies().get());
        let in_use: u64 = self.books.values().map(|book| book.report().in_use).sum();
        lendings.sort_by_key(|lending| (lending.counted, lending.served_at));
        for lending in lendings {
            let Some(book) = self.books.get_mut(&lending.holder) else { continue };
            let counted = book.counted(counted_for, now);
            // More may be in use than there is: what began before the limit was set, or lowered.
            let in_use_by_others = in_use.saturating_sub(book.report().in_use);
            let unused_by_others = self.quantity.saturating_sub(in_use_by_others);
            lending.amount = lending.amount.min(counted + free).min(unused_by_others);
            free -= lending.amount.saturating_sub(counted);
            lending.safe = match carries {
                true => book.report().safe.min(self.quantity),
                false => even.min(book.counted_safe() + safe_free),
            };
            safe_free -= lending.safe.saturating_sub(book.counted_safe());
            // More is counted than there is: the quantity was lowered, or a holder that was
            // forgotten says what it has. That may have been so long ago that it has it no more,
            // while others have been lent all, so it is not to get it anew.
            let left = |of: u64, all: u64, own: u64| of.saturating_sub(all.saturating_sub(own));
            lending.carried = lending.amount > left(quantity, all_counted, counted)
                || lending.safe > left(self.quantity, safe_counted, book.counted_safe());
            let has_extra = lending.level.is_some_and(|level| lending.amount > level);
            if has_extra {
                book.extra_since.get_or_insert(now);
            } else if book.extra_since.take().is_some() {
                book.served_at = now;
            }
        }
    }

    /// Those among which what there is to lend is shared.
    fn taking_part(&self, now: Instant) -> impl Iterator<Item = (&H, &Book)> {
        self.books.iter().filter(move |(_, book)| !self.is_apart(book, now))
    }

    /// The others. Each may still apply a grant of the former granter.
    fn apart(&self, now: Instant) -> impl Iterator<Item = (&H, &Book)> {
        self.books.iter().filter(move |(_, book)| self.is_apart(book, now))
    }

    fn is_apart(&self, book: &Book, now: Instant) -> bool {
        self.carries(now) && !book.has_applied(self.term)
    }

    /// What those use that say that they have nothing, and take no part yet. A process that stood
    /// still does: what it had before is among what was found.
    fn in_use_anew(&self, now: Instant) -> u64 {
        let anew = self.apart(now).filter(|(_, book)| book.has_applied(Term(0)));
        anew.map(|(_, book)| book.report().in_use).sum()
    }

    /// Those in contact that do not take part. Each has its own prolonged.
    fn carried(&self, now: Instant) -> Vec<Lending<H>> {
        self.apart(now)
            .filter(|(_, book)| book.is_in_contact(self.terms.lease, now))
            .map(|(holder, book)| Lending::prolonging(holder, book, self.quantity))
            .collect()
    }

    /// What may be lent to those that take part.
    fn to_lend(&self, now: Instant) -> u64 {
        if self.carries(now) { self.found.min(self.quantity) } else { self.quantity }
    }

    /// What there is to share out: of whole units without what silent holders may have, which
    /// were killed or cut off. Of turns and even shares that were reckoned with these, those who
    /// want one would wait in vain.
    fn to_share(&self, now: Instant) -> u64 {
        let (lease, counted_for) = (self.terms.lease, self.terms.counted_for());
        let silent = self.taking_part(now).filter(|(_, book)| !book.is_in_contact(lease, now));
        match self.terms.unit {
            Unit::Divisible { .. } => self.to_lend(now),
            Unit::Whole { .. } => {
                let theirs = silent.map(|(_, book)| book.counted(counted_for, now)).sum();
                self.to_lend(now).saturating_sub(theirs)
            }
        }
    }

    /// What each holder in contact is to have in the end, of those that take part.
    fn targets(&self, now: Instant) -> Vec<Lending<H>> {
        let (lease, counted_for) = (self.terms.lease, self.terms.counted_for());
        let mut lendings: Vec<_> = self
            .taking_part(now)
            .filter(|(_, book)| book.is_in_contact(lease, now))
            .map(|(holder, book)| Lending::of(holder, book, book.counted(counted_for, now)))
            .collect();
        let quantity = self.to_share(now);
        let floor = match self.terms.unit {
            Unit::Divisible { floor } => {
                let even = quantity / lendings.len().max(1) as u64;
                floor.min(even / Unit::FLOOR_PARTS)
            }
            Unit::Whole { .. } => 0,
        };
        let demands: Vec<u64> =
            lendings.iter().map(|lending| lending.report.demand.max(floor).min(quantity)).collect();
        let demands = match self.terms.unit {
            Unit::Divisible { .. } => reserved(quantity, demands),
            Unit::Whole { .. } => demands,
        };
        let kept: Vec<u64> = lendings.iter().map(|lending| lending.kept).collect();
        let (shares, apart) = shares_beside(quantity, &demands, &kept);
        for (index, lending) in lendings.iter_mut().enumerate() {
            lending.amount = shares.amounts[index];
            lending.level = match apart[index] {
                // What is new there waits with all others for what goes round.
                true => (shares.level == 0 && demands[index] > kept[index]).then_some(kept[index]),
                false => (!shares.all_met && demands[index] > shares.level).then_some(shares.level),
            };
        }
        if let Unit::Whole { turn } = self.terms.unit {
            let turn = match shares.level {
                // Each move leaves a unit idle on its way.
                0 => turn.max(round_of_turns(&lendings, shares.rest)),
                // Where everybody has something, moving the rest serves fairness alone.
                _ => turn * 8,
            };
            hand_round(&mut lendings, &shares, |since| now < since + turn);
        }
        for (lending, apart) in lendings.iter_mut().zip(apart) {
            // What it keeps is in use without a lease: with one, another request would take the
            // place of whatever ends.
            if apart && lending.amount <= lending.kept {
                lending.amount = shares.level.min(lending.kept);
            }
        }
        lendings
    }

    /// The most that may be in use over all holders.
    #[must_use]
    pub fn counted(&self, now: Instant) -> u64 {
        let counted_for = self.terms.counted_for();
        let live = self.books.values().filter(|book| !book.is_over(counted_for, now));
        live.map(|book| book.counted(counted_for, now)).sum()
    }

    /// What is known of each holder, and what it was granted last; those that are merely
    /// presumed are left out.
    pub fn holders(&self) -> impl Iterator<Item = (&H, &Report, u64)> {
        let heard = self.books.iter().filter(|(_, book)| !book.is_presumed());
        heard.map(|(holder, book)| (holder, book.report(), book.granted.0))
    }

    /// Holders that are presumed to have something and were not heard of.
    pub fn unheard(&self) -> impl Iterator<Item = &H> {
        self.books.iter().filter(|(_, book)| book.is_presumed()).map(|(holder, _)| holder)
    }
}
