//! What a granter counts for one holder.
//!
//! The holder may hold what it last said, or what any grant lends that it has not
//! confirmed and that has not ended: the granter cannot know which of them arrived. It
//! counts the largest.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Grant, Report, Term};

/// The account of one holder.
#[derive(Clone, Debug)]
pub(super) struct Book {
    /// The latest report, or what the holder is presumed to hold.
    report: Report,
    /// When it was received; `None` for a presumption, which does not end by itself.
    heard_at: Option<Instant>,
    /// Grants that a report has not confirmed, the earliest first.
    lent: VecDeque<Lent>,
    /// In so many frames it said that it has something else than what it may apply.
    unconfirmed: u8,
    /// A report came after the last grant.
    pub(super) unanswered: bool,
    /// Amount and safe share of the last grant.
    pub(super) granted: (u64, u64),
    /// Since when it has had one of the units that go round.
    pub(super) extra_since: Option<Instant>,
    /// When it last gave up such a unit, or when it was first heard of.
    pub(super) served_at: Instant,
    /// Units in use that do not come back, though others want them: a long download, a WebSocket.
    kept: u64,
    /// Since when more is in use than is lent.
    over_since: Option<Instant>,
}

/// After so long what is in use beyond what is lent is taken for something that stays.
const KEPT_AFTER: Duration = Duration::from_millis(500);

/// A grant that the holder may hold.
#[derive(Clone, Copy, Debug)]
struct Lent {
    id: u64,
    amount: u64,
    safe: u64,
    /// When the report that it answers was received.
    since: Instant,
}

impl Book {
    /// Of a holder that has not been heard of yet and is presumed to use `holds`, which is
    /// its safe share.
    pub(super) fn presumed(holds: u64, now: Instant) -> Self {
        let report = Report {
            seq: 0,
            term: Term(0),
            applied: 0,
            holds,
            safe: holds,
            in_use: 0,
            demand: 0,
            is_recent: false,
        };
        Self {
            report,
            heard_at: None,
            lent: VecDeque::new(),
            unconfirmed: 0,
            unanswered: false,
            granted: (0, 0),
            extra_since: None,
            served_at: now,
            kept: 0,
            over_since: None,
        }
    }

    /// Takes a report in, unless a later one is known.
    pub(super) fn hear(&mut self, report: &Report, term: Term, now: Instant) -> bool {
        if report.seq <= self.report.seq {
            return false;
        }
        if report.term == term {
            self.lent.retain(|lent| lent.id > report.applied);
        }
        self.report = *report;
        self.heard_at = Some(now);
        self.unconfirmed = 0;
        self.unanswered = true;
        true
    }

    /// Takes in that the holder repeats its latest report: all that it may hold is counted on.
    pub(super) fn hear_again(&mut self, now: Instant) {
        if self.heard_at.is_none() {
            return;
        }
        self.heard_at = Some(now);
        for lent in &mut self.lent {
            lent.since = now;
        }
        // Another grant than what it has was not applied, and may be lost.
        if self.has_what_was_lent() {
            self.unconfirmed = 0;
        } else {
            self.unanswered = true;
            self.unconfirmed = self.unconfirmed.saturating_add(1);
        }
    }

    /// Whether only a report can tell which grant it has applied: one that was lost would be
    /// counted for as long as the holder has nothing else to say.
    pub(super) fn wants_report(&self) -> bool {
        self.unconfirmed >= UNCONFIRMED_MAX
    }

    /// Whether all that it may apply is what it has: that such a grant was applied is not said.
    fn has_what_was_lent(&self) -> bool {
        let Report { holds, safe, .. } = self.report;
        self.lent.iter().all(|lent| (lent.amount, lent.safe) == (holds, safe))
    }

    /// Whether nothing is to be said to it.
    pub(super) fn rests(&self, lease: Duration, now: Instant) -> bool {
        !self.unanswered
            && self.has_what_was_lent()
            && self.heard_at.is_some_and(|at| now < at + lease / 2)
    }

    /// Enters a grant that answers the latest report.
    pub(super) fn lend(&mut self, grant: &Grant) {
        let Some(since) = self.heard_at else { return };
        let mut lent = Lent { id: grant.id, amount: grant.amount, safe: grant.safe, since };
        if self.lent.len() == LENT_MAX
            && let Some(last) = self.lent.pop_back()
        {
            // Counted as one, which ends and is confirmed as late as the later.
            lent.amount = lent.amount.max(last.amount);
            lent.safe = lent.safe.max(last.safe);
        }
        self.lent.push_back(lent);
        self.unanswered = false;
        self.granted = (grant.amount, grant.safe);
    }

    /// The most that may be in use, or be taken into use, unless it is over.
    pub(super) fn counted(&self, counted_for: Duration, now: Instant) -> u64 {
        let reported = self.report.holds.max(self.report.in_use);
        let lent = self.lent.iter().filter(|lent| now < lent.since + counted_for);
        lent.map(|lent| lent.amount).fold(reported, u64::max)
    }

    /// Looks at which units in use do not come back.
    pub(super) fn look_at_kept(&mut self, now: Instant) {
        let Report { in_use, .. } = self.report;
        self.kept = self.kept.min(in_use);
        if in_use <= self.granted.0 {
            self.over_since = None;
        } else if now >= *self.over_since.get_or_insert(now) + KEPT_AFTER {
            self.kept = in_use;
        }
    }

    /// Units in use that do not come back, as far as is known.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// The largest safe share that it may believe to have.
    pub(super) fn counted_safe(&self) -> u64 {
        self.lent.iter().map(|lent| lent.safe).fold(self.report.safe, u64::max)
    }

    /// Whether a report came within `lease`, so that a grant would still reach it in time.
    pub(super) fn is_in_contact(&self, lease: Duration, now: Instant) -> bool {
        self.heard_at.is_some_and(|at| now < at + lease)
    }

    /// Whether nothing is counted any more: every grant answers a report, and so ends no
    /// later than what the last report says.
    pub(super) fn is_over(&self, counted_for: Duration, now: Instant) -> bool {
        self.heard_at.is_some_and(|at| now >= at + counted_for)
    }

    /// Whether it is only presumed what the holder has.
    pub(super) fn is_presumed(&self) -> bool {
        self.heard_at.is_none()
    }

    /// Whether it has applied a grant of this term, and so will apply none of a term before.
    pub(super) fn has_applied(&self, term: Term) -> bool {
        self.report.term == term
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}

/// A grant that is on its way when a frame is sent is old news in the next but one.
const UNCONFIRMED_MAX: u8 = 3;

/// More unconfirmed grants are counted as one.
const LENT_MAX: usize = 8;
