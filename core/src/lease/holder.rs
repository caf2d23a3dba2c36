//! The proxy's end: what it may use, and until when.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{AMOUNT_MAX, Grant, Report, Term, Terms};

/// One proxy's lease of one quantity. Made anew at each start of the process.
#[derive(Clone, Debug)]
pub struct Holder {
    terms: Terms,
    on_loss: OnLoss,
    term: Term,
    applied: u64,
    amount: u64,
    safe: u64,
    until: Instant,
    /// For how long the last grant lends.
    lease: Duration,
    /// It never had a lease and may use its safe share at once.
    starts_safe: bool,
    /// Since when another process has its safe share.
    retired_at: Option<Instant>,
    proxies: u32,
    seq: u64,
    /// When the latest reports were sent.
    sent: VecDeque<(u64, Instant)>,
    /// The latest report.
    said: Option<Report>,
}

/// What a holder does when its lease has ended and no grant came.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnLoss {
    /// It uses its safe share: traffic goes on. The bound holds while the control plane is
    /// away from all proxies; a proxy that alone is cut off adds at most its safe share.
    #[default]
    SafeShare,
    /// The same, but where there are fewer units than proxies, so that no share is a whole one,
    /// each goes on with one: rather a bound that is exceeded than traffic that stops.
    /// While the control plane is away from everybody, all together have then at most one
    /// each, beside what is still in use of leases.
    OneEach {
        /// How many units there are.
        of: u64,
    },
    /// It starts nothing: the bound holds whatever happens.
    Nothing,
    /// It goes on with its lease or its safe share, whichever is larger, and at least one: for
    /// a bound that need not hold exactly. While the control plane is away from everybody, all
    /// together have at most twice the quantity, and about the quantity when each has an
    /// even share. One that has just begun uses what it remembers at once.
    Keep,
}

/// A grant took effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Applied {
    /// The lease became smaller: a report that is sent at once lets others have the
    /// difference sooner. Or it is the first of a new granter, which then knows that this holder
    /// is fenced off from the former.
    pub report_now: bool,
}

/// Why a grant changed nothing. None of these is a fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Another granter has taken over since.
    #[error("the grant is of term {}, and term {} has begun", .of.0, .known.0)]
    Fenced {
        /// Of the grant.
        of: Term,
        /// Of the last grant that was applied.
        known: Term,
    },
    /// It, or a later one, was applied before.
    #[error("grant {id} comes after grant {applied}")]
    Stale {
        /// Of this grant.
        id: u64,
        /// Of the last that was applied.
        applied: u64,
    },
    /// It answers no report of this process, or one of long ago.
    #[error("the grant answers report {answers}, which is not remembered")]
    Unknown {
        /// The report.
        answers: u64,
    },
    /// Its lease has ended on its way.
    #[error("the lease ended before the grant arrived")]
    Ended,
}

/// What may be used over time, if no further grant comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stages {
    /// Until `lease_until`.
    pub lease: u64,
    /// When the lease ends.
    pub lease_until: Instant,
    /// Between the two instants.
    pub between: u64,
    /// When the leases of all others have ended, too.
    pub safe_from: Instant,
    /// From then on.
    pub safe: u64,
}

impl Stages {
    /// What may be used at `now`.
    #[must_use]
    pub fn at(&self, now: Instant) -> u64 {
        if now < self.lease_until {
            self.lease
        } else if now < self.safe_from {
            self.between
        } else {
            self.safe
        }
    }
}

impl Holder {
    /// A holder without a lease, which may use its safe share after
    /// `hold + lease + margin`. `safe` and `proxies` are what the former process of this
    /// proxy was last granted, if that was kept; 0 and 1 if nothing is known.
    #[must_use]
    pub fn new(terms: Terms, on_loss: OnLoss, safe: u64, proxies: u32, now: Instant) -> Self {
        Self {
            terms,
            on_loss,
            term: Term(0),
            applied: 0,
            amount: 0,
            safe,
            until: now,
            lease: Duration::ZERO,
            starts_safe: false,
            retired_at: None,
            proxies: proxies.max(1),
            seq: 0,
            sent: VecDeque::new(),
            said: None,
        }
    }

    /// A holder that uses its safe share from the start, because the granter presumes that
    /// it does ([`super::Granter::presume`]).
    #[must_use]
    pub fn with_safe_share(terms: Terms, safe: u64, proxies: u32, now: Instant) -> Self {
        let holder = Self::new(terms, OnLoss::SafeShare, safe, proxies, now);
        Self { starts_safe: true, ..holder }
    }

    /// Changes what it does when no grant comes.
    pub fn set_on_loss(&mut self, on_loss: OnLoss) {
        self.on_loss = on_loss;
    }

    /// Gives its safe share up to another process, which takes its place: without a lease it
    /// begins nothing more. One that keeps what it has ([`OnLoss::Keep`]) does so to its end.
    pub fn retire(&mut self, now: Instant) {
        self.retired_at.get_or_insert(now);
    }

    /// Whether another process has its safe share.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired_at.is_some()
    }

    /// Changes how long what is begun under a lease may last beyond it.
    pub fn set_hold(&mut self, hold: Duration) {
        self.terms.hold = hold;
    }

    /// What to send to the granter. The lease that answers it counts from `now`, so `now`
    /// must not be later than the sending.
    pub fn report(&mut self, demand: u64, in_use: u64, now: Instant) -> Report {
        self.seq += 1;
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((self.seq, now));
        let report = self.says(demand, in_use, now);
        self.said = Some(report);
        report
    }

    /// The number of the latest report.
    #[must_use]
    pub fn last_report(&self) -> u64 {
        self.seq
    }

    /// Whether a report would say what the latest said, but for a grant that changed nothing.
    #[must_use]
    pub fn repeats(&self, demand: u64, in_use: u64, now: Instant) -> bool {
        let Some(said) = self.said else { return false };
        let says = Report { applied: said.applied, ..self.says(demand, in_use, now) };
        self.is_leased(now) && says == said
    }

    fn says(&self, demand: u64, in_use: u64, now: Instant) -> Report {
        // Once the lease has ended, what it may come to use before an answer arrives. A process
        // that has just begun may not use its safe share yet, and others may have it.
        let holds =
            if self.is_leased(now) { self.amount } else { self.usable(now + self.terms.lease) };
        Report {
            seq: self.seq,
            term: self.term,
            applied: self.applied,
            holds,
            safe: self.safe_share(),
            in_use,
            demand,
            // A lease ends `lease` after the report that was answered.
            is_recent: self.term > Term(0)
                && now + self.terms.lease < self.until + self.terms.counted_for(),
        }
    }

    /// Takes a grant in.
    pub fn apply(&mut self, grant: &Grant, now: Instant) -> Result<Applied, Refused> {
        if grant.term < self.term {
            return Err(Refused::Fenced { of: grant.term, known: self.term });
        }
        if grant.term == self.term && grant.id <= self.applied {
            return Err(Refused::Stale { id: grant.id, applied: self.applied });
        }
        let answers = grant.answers;
        let Ok(place) = self.sent.binary_search_by_key(&answers, |(seq, _)| *seq) else {
            return Err(Refused::Unknown { answers });
        };
        let (_, sent_at) = self.sent[place];
        // Never longer than this end believes leases to be.
        let until = sent_at + grant.lease.min(self.terms.lease);
        if until <= now {
            return Err(Refused::Ended);
        }
        let before = self.usable(now);
        // A granter that follows another waits for that.
        let is_followed = grant.carried && self.term < grant.term;
        let at_most = |has: u64| if grant.carried { has } else { AMOUNT_MAX };
        self.lease = until - sent_at;
        self.amount = grant.amount.min(at_most(before));
        // A granter that does not know all yet gives nobody a larger one.
        let safe_at_most = if grant.proxies.is_none() { self.safe } else { at_most(self.safe) };
        self.safe = grant.safe.min(safe_at_most);
        self.until = until;
        self.starts_safe = false;
        self.term = grant.term;
        self.applied = grant.id;
        if let Some(proxies) = grant.proxies {
            self.proxies = proxies.get();
        }
        Ok(Applied { report_now: self.amount < before || is_followed })
    }

    /// A granter of this term has heard a frame that was sent at `sent_at` and repeated the latest
    /// report, or one before it. What is lent is lent from there on.
    pub fn renew(&mut self, term: Term, sent_at: Instant, now: Instant) {
        if let Some((_, at)) = self.sent.back_mut() {
            *at = sent_at.max(*at);
        }
        if term == self.term && self.is_leased(now) {
            self.until = self.until.max(sent_at + self.lease);
        }
    }

    /// What may be used at `now`.
    #[must_use]
    pub fn usable(&self, now: Instant) -> u64 {
        self.stages().at(now).max(self.least(now))
    }

    /// What may be used at `now` whatever the share is ([`OnLoss::OneEach`]): a moment after the
    /// lease's end, so that a late grant still finds the bound kept, and a request that has
    /// waited half of its time for the slots to come round ([`Terms::ROUND`]) is still served;
    /// in a process that has just begun once the former's requests have ended.
    fn least(&self, now: Instant) -> u64 {
        let OnLoss::OneEach { of } = self.on_loss else { return 0 };
        let begins = match self.term {
            Term(0) => self.until + self.terms.counted_for(),
            _ => self.until + self.terms.lease / 4,
        };
        u64::from(of < self.proxies.into() && begins <= now && self.retired_at.is_none())
    }

    /// What may be used over time, if no further grant comes, as shares of the quantity.
    #[must_use]
    pub fn stages(&self) -> Stages {
        let safe = self.safe_share();
        if self.on_loss == OnLoss::Keep {
            let (lease, lease_until) = (self.amount, self.until);
            return Stages { lease, lease_until, between: safe, safe_from: self.until, safe };
        }
        // Others may hold a lease that is one lease younger than this one.
        let others_end = self.until + self.terms.counted_for();
        Stages {
            lease: self.amount,
            lease_until: self.until,
            between: self.amount.min(safe),
            safe_from: if self.starts_safe { self.until } else { others_end },
            safe,
        }
    }

    /// Whether a lease is in force at `now`; if not, the control plane has been away for
    /// the length of one.
    #[must_use]
    pub fn is_leased(&self, now: Instant) -> bool {
        now < self.until
    }

    /// When what was begun under the lease must have ended, if no further grant comes; what
    /// was begun under a safe share that another process has now, too.
    #[must_use]
    pub fn ends_at(&self) -> Instant {
        self.retired_at.map_or(self.until, |at| self.until.max(at)) + self.terms.hold
    }

    /// What to remember over restarts: the safe share, and the number of proxies that
    /// share the quantity.
    #[must_use]
    pub fn remembered(&self) -> (u64, u32) {
        let safe = match self.on_loss {
            // It changes all the time, and is written to disk when it does.
            OnLoss::Keep => 1 << self.safe_share().ilog2(),
            OnLoss::SafeShare | OnLoss::OneEach { .. } | OnLoss::Nothing => self.safe,
        };
        (safe, self.proxies)
    }

    /// Whether what is in use may be more than what is granted for as long as it takes.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.on_loss == OnLoss::Keep
    }

    fn safe_share(&self) -> u64 {
        match self.on_loss {
            OnLoss::SafeShare | OnLoss::OneEach { .. } if self.retired_at.is_none() => self.safe,
            OnLoss::SafeShare | OnLoss::OneEach { .. } | OnLoss::Nothing => 0,
            OnLoss::Keep => self.amount.max(self.safe).max(1),
        }
    }
}

/// Answers to earlier reports have ended, at a report every 10 ms or less often.
const SENT_MAX: usize = 128;
