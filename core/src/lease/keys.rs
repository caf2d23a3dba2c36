//! Leases of the hot keys of a limit that counts by key.
//!
//! Every proxy has the even share of every key without asking. When one needs more of a
//! key, a [`Granter`] for that key presumes that each of the others uses its even share,
//! asks them all to report about the key, and moves their shares to where the demand is.
//! When nobody needs more than an even share any more, the leases are left to end, and all
//! are back where they began.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{Former, Grant, Granter, Heard, Report, Term, Terms};

/// Lends the keys of one limit; `H` names one start of a proxy process.
#[derive(Debug)]
pub struct KeyGranter<H> {
    term: Term,
    /// Of each key, over the fleet.
    rate: u64,
    keys_max: usize,
    /// Until then a former granter may have lent any key.
    former_until: Instant,
    /// Until then not all proxies may have been heard of.
    gathers_until: Instant,
    /// Grants of keys that are lent no more were numbered up to here.
    grants: u64,
    members: BTreeSet<H>,
    keys: BTreeMap<u64, Key<H>>,
}

#[derive(Debug)]
struct Key<H> {
    granter: Granter<H>,
    /// When somebody last needed more than an even share.
    needed_at: Instant,
}

impl<H: Clone + Ord> KeyGranter<H> {
    /// The default of the keys that are lent at a time. Each costs a report and a grant
    /// per proxy and period.
    pub const KEYS_MAX: usize = 1000;
    /// Shares of keys over all proxies, which bounds what a period costs.
    pub const SHARES_MAX: usize = 20_000;
    /// Keys that are lent at a time in however large a fleet.
    pub const KEYS_MIN: usize = 20;
    /// After how long without need a key is left to itself.
    pub const CALM: Duration = Duration::from_secs(10);

    /// Lends keys that have this rate each, at most `keys_max` at a time; what is hot
    /// beyond them keeps its even shares.
    #[must_use]
    pub fn new(term: Term, rate: u64, keys_max: usize, former: Former, now: Instant) -> Self {
        let former_until = match former {
            Former::None => now,
            Former::Unknown | Former::MayHaveLent => now + TERMS.counted_for(),
        };
        let gathers_until = now + TERMS.counted_for();
        let (members, keys) = (BTreeSet::new(), BTreeMap::new());
        Self { term, rate, keys_max, former_until, gathers_until, grants: 0, members, keys }
    }

    /// Changes the rate of every key.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
        for key in self.keys.values_mut() {
            key.granter.set_quantity(rate);
        }
    }

    /// Numbers all grants from here on; see [`Granter::number_after`].
    pub fn number_after(&mut self, grants: u64) {
        self.grants = self.grants.max(grants);
    }

    /// The largest number of a grant.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        let numbers = self.keys.values().map(|key| key.granter.last_number());
        numbers.fold(self.grants, u64::max)
    }

    /// The proxies that serve this limit.
    #[must_use]
    pub fn members(&self) -> &BTreeSet<H> {
        &self.members
    }

    /// How many proxies are to share every key evenly; nothing before all that there are have had
    /// time to be heard of: a smaller number would give each of them more.
    #[must_use]
    pub fn proxies(&self, now: Instant) -> Option<u32> {
        let count = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        (now >= self.gathers_until).then_some(count)
    }

    /// A proxy that serves this limit; it is presumed to use its even share of every key.
    pub fn join(&mut self, member: &H) {
        // Told in every report.
        if !self.members.contains(member) {
            self.members.insert(member.clone());
        }
    }

    /// A proxy that is gone. What it was lent ends by itself.
    pub fn leave(&mut self, member: &H) {
        self.members.remove(member);
        for key in self.keys.values_mut() {
            if key.granter.unheard().any(|unheard| unheard == member) {
                key.granter.remove(member);
            }
        }
    }

    /// Takes in what a member reports about a key. A key that is not lent is lent from now
    /// on, if more than an even share of it is needed.
    pub fn hear(&mut self, from: &H, key: u64, report: &Report, now: Instant) -> Heard {
        if report.term > self.term {
            return Heard::Outranked(report.term);
        }
        let is_needed = report.demand > self.even_share();
        if !self.keys.contains_key(&key) {
            if !is_needed || self.keys.len() >= self.room() {
                return Heard::Noted;
            }
            self.open(key, now);
        }
        let Some(key) = self.keys.get_mut(&key) else { return Heard::Noted };
        if is_needed {
            key.needed_at = now;
        }
        key.granter.hear(from, report, now)
    }

    /// Who is to be asked to report about which key: to be sent with every round of
    /// grants, until they do.
    pub fn unheard(&self) -> impl Iterator<Item = (&H, u64)> {
        self.keys
            .iter()
            .flat_map(|(&key, one)| one.granter.unheard().map(move |holder| (holder, key)))
    }

    /// Who is to be asked to report about this key.
    pub fn unheard_of(&self, key: u64) -> impl Iterator<Item = &H> {
        self.keys.get(&key).into_iter().flat_map(|one| one.granter.unheard())
    }

    /// What to send now, to whom and about which key; see [`Granter::grant`].
    pub fn grant(&mut self, now: Instant) -> Vec<(H, u64, Grant)> {
        self.forget_calm(now);
        let (even, mut sent) = (self.even_share(), Vec::new());
        for (&key, one) in &mut self.keys {
            one.grant(key, &self.members, even, now, &mut sent);
        }
        sent
    }

    /// What to send now about this key alone, because somebody waits for it.
    pub fn grant_of(&mut self, key: u64, now: Instant) -> Vec<(H, u64, Grant)> {
        let (even, mut sent) = (self.even_share(), Vec::new());
        if let Some(one) = self.keys.get_mut(&key) {
            one.grant(key, &self.members, even, now, &mut sent);
        }
        sent
    }

    /// Forgets the keys whose last lease has ended, and what follows it: to be called also
    /// when nothing is lent any more.
    pub fn forget_calm(&mut self, now: Instant) {
        let over = Self::CALM + 3 * TERMS.counted_for();
        self.grants = self.last_number();
        self.keys.retain(|_, key| now < key.needed_at + over);
    }

    /// How many keys may be lent at a time: each costs something for every proxy.
    fn room(&self) -> usize {
        let of_all = Self::SHARES_MAX / self.members.len().max(1);
        self.keys_max.min(of_all.max(Self::KEYS_MIN))
    }

    /// How many keys are lent.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// What each proxy has of every key that is not lent.
    #[must_use]
    pub fn even_share(&self) -> u64 {
        self.rate / self.members.len().max(1) as u64
    }

    fn open(&mut self, key: u64, now: Instant) {
        let former = if now < self.former_until { Former::MayHaveLent } else { Former::None };
        let mut granter = Granter::new(self.term, self.rate, TERMS, former, now);
        granter.number_after(self.grants);
        let mut one = Key { granter, needed_at: now };
        one.presume(&self.members, self.even_share(), now);
        self.keys.insert(key, one);
    }
}

impl<H: Clone + Ord> Key<H> {
    /// Presumes of all who have not told otherwise that they use their even share.
    fn presume(&mut self, members: &BTreeSet<H>, even: u64, now: Instant) {
        for member in members {
            self.granter.presume(member, even, now);
        }
    }

    fn grant(
        &mut self,
        key: u64,
        members: &BTreeSet<H>,
        even: u64,
        now: Instant,
        sent: &mut Vec<(H, u64, Grant)>,
    ) {
        if now >= self.needed_at + KeyGranter::<H>::CALM {
            return;
        }
        // Whoever has said nothing of the key for so long is back at its even share, and whoever
        // is new begins with it.
        self.granter.forget_over(now);
        self.presume(members, even, now);
        let grants = self.granter.grant(now);
        sent.extend(grants.into_iter().map(|(holder, grant)| (holder, key, grant)));
    }
}

const TERMS: Terms = Terms::rate();
