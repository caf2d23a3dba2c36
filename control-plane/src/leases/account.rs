//! One quantity: who may use how much of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_core::{
    lease::{Census, Former, Granter, Heard, KeyGranter, Quantity, Sort, Term, Wanted},
    model::InstanceId,
    resilience::concurrency::FleetConcurrency,
};
use lb_proto::{convert, v1 as pb};

use super::HolderId;

/// Before it is told again by how many proxies a limit by key is shared.
const TOLD_FOR: Duration = Duration::from_secs(1);

/// A quantity that is lent, or was until lately.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) wanted: Wanted,
    /// Whether the configuration wants it still.
    pub(super) is_wanted: bool,
    /// Nothing of it was lent before the control plane was started.
    pub(super) is_new: bool,
    pub(super) lender: Lender,
    /// Whether all were heard who may have something of an earlier start; if those are known, and
    /// until then.
    census: Option<Census<Arc<str>>>,
    /// What the number of slots follows, if it is found out.
    pub(super) adaptive: Option<FleetConcurrency<HolderId>>,
    /// By how many proxies each holder was told that a limit by key is shared, and when.
    told: BTreeMap<HolderId, (u32, Instant)>,
    /// Requests that wait, as each holder told last.
    pub(super) waiting: BTreeMap<HolderId, u64>,
}

#[derive(Debug)]
pub(super) enum Lender {
    Whole(Granter<HolderId>),
    ByKey(KeyGranter<HolderId>),
}

impl Account {
    pub(super) fn open(term: Term, wanted: Wanted, former: Former, now: Instant) -> Self {
        let lender = match wanted.sort {
            Sort::Slots { .. } | Sort::Rate { .. } => {
                Lender::Whole(Granter::new(term, wanted.amount, wanted.terms(), former, now))
            }
            Sort::RateByKey { .. } => {
                let keys_max = KeyGranter::<HolderId>::KEYS_MAX;
                Lender::ByKey(KeyGranter::new(term, wanted.amount, keys_max, former, now))
            }
        };
        let adaptive = adaptive(&wanted, None, now);
        let (told, waiting) = (BTreeMap::new(), BTreeMap::new());
        let is_new = former == Former::None;
        Self { wanted, is_wanted: true, is_new, lender, census: None, adaptive, told, waiting }
    }

    /// Lends anew once all of these were heard: nobody else has anything of an earlier start.
    pub(super) fn follow(&mut self, former: &[InstanceId]) {
        self.census = Some(Census::new(former.iter().map(Into::into)));
    }

    /// Whether it lends nothing new, since leases of an earlier start may be in force.
    pub(super) fn carries(&self, now: Instant) -> bool {
        match &self.lender {
            Lender::Whole(granter) => granter.carries(now),
            Lender::ByKey(_) => false,
        }
    }

    /// The processes that may have something.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Arc<str>> {
        let whole = match &self.lender {
            Lender::Whole(granter) => Some(granter.holders()),
            // Whoever has keys reports, or has lost its even share, too, as far as is known.
            Lender::ByKey(_) => None,
        };
        whole.into_iter().flatten().map(|(holder, ..)| &holder.instance)
    }

    /// Wants this from now on; `false` if that takes another account.
    pub(super) fn change(&mut self, wanted: Wanted, now: Instant) -> bool {
        if !wanted.continues(&self.wanted) {
            return false;
        }
        self.wanted = wanted;
        self.is_wanted = true;
        self.adaptive = adaptive(&wanted, self.adaptive.take(), now);
        match &mut self.lender {
            Lender::Whole(granter) => {
                if self.adaptive.is_none() {
                    granter.set_quantity(wanted.amount);
                }
                granter.set_hold(wanted.terms().hold, now);
            }
            Lender::ByKey(granter) => granter.set_rate(wanted.amount),
        }
        true
    }

    pub(super) fn number_after(&mut self, grants: u64) {
        match &mut self.lender {
            Lender::Whole(granter) => granter.number_after(grants),
            Lender::ByKey(granter) => granter.number_after(grants),
        }
    }

    pub(super) fn last_number(&self) -> u64 {
        match &self.lender {
            Lender::Whole(granter) => granter.last_number(),
            Lender::ByKey(granter) => granter.last_number(),
        }
    }

    pub(super) fn hear(
        &mut self,
        holder: &HolderId,
        wire: &pb::LeaseReport,
        now: Instant,
    ) -> Heard {
        let report = convert::lease_report_from_wire(wire);
        match (&mut self.lender, wire.key) {
            (Lender::Whole(granter), None) => {
                let mut heard = granter.hear(holder, &report, now);
                if matches!(heard, Heard::Stale | Heard::Outranked(_)) {
                    return heard;
                }
                if let Some(census) = &mut self.census {
                    if census.hear(&holder.instance, &report, granter.term()) {
                        granter.former_is_accounted_for(now);
                    }
                    // What follows waits for the answer.
                    heard = Heard::Urgent;
                    if !granter.carries(now) {
                        self.census = None;
                    }
                }
                if self.waiting.insert(holder.clone(), wire.waiting).is_none() {
                    self.succeed(holder);
                }
                let (Lender::Whole(granter), Some(adaptive)) =
                    (&mut self.lender, &mut self.adaptive)
                else {
                    return heard;
                };
                let before = adaptive.slots(now);
                adaptive.hear(holder, convert::told_from_wire(wire), !granter.carries(now), now);
                if adaptive.slots(now) == before { heard } else { Heard::Urgent }
            }
            (Lender::ByKey(granter), None) => {
                granter.join(holder);
                Heard::Noted
            }
            (Lender::ByKey(granter), Some(key)) => granter.hear(holder, key, &report, now),
            // It takes the quantity for one of another sort: it is behind, or ahead.
            (Lender::Whole(_), Some(_)) => Heard::Stale,
        }
    }

    /// The latest holder of a process, and the number of its last report; of a quantity whose
    /// reports may be repeated.
    pub(super) fn last_heard(
        &self,
        process: &RangeInclusive<HolderId>,
    ) -> Option<(&HolderId, u64)> {
        match &self.lender {
            Lender::Whole(granter) => granter.last_heard(process.clone()),
            Lender::ByKey(_) => None,
        }
    }

    /// The latest holder of a process repeats its last report.
    pub(super) fn hear_again(&mut self, process: &RangeInclusive<HolderId>, now: Instant) {
        if let Lender::Whole(granter) = &mut self.lender
            && let Some((holder, _)) = granter.last_heard(process.clone())
        {
            let holder = holder.clone();
            granter.hear_again(&holder, now);
        }
    }

    /// A process that stood still goes on under a new number, without what it had under the
    /// former one but for what it says to be in use: nothing waits for that to end.
    fn succeed(&mut self, holder: &HolderId) {
        let Lender::Whole(granter) = &mut self.lender else { return };
        let is_former = |other: &HolderId| other.is_former_of(holder);
        let holders = granter.holders().map(|(other, ..)| other);
        let former: Vec<_> = holders.filter(|other| is_former(other)).cloned().collect();
        for other in former {
            granter.remove(&other);
            self.waiting.remove(&other);
            if let Some(adaptive) = &mut self.adaptive {
                adaptive.forget(&other);
            }
        }
    }

    /// Frees what a process had that is done; whether there was anything.
    pub(super) fn leave(&mut self, instance: &str) -> bool {
        self.forget(instance);
        match &mut self.lender {
            Lender::Whole(granter) => {
                let holders: Vec<_> =
                    granter.holders().map(|(holder, ..)| holder.clone()).collect();
                let own = holders.into_iter().filter(|holder| &*holder.instance == instance);
                own.map(|holder| granter.remove(&holder)).count() > 0
            }
            Lender::ByKey(granter) => leave_keys(granter, instance),
        }
    }

    /// Hears no more of a process: what it was lent ends by itself.
    pub(super) fn lose(&mut self, instance: &str) {
        self.forget(instance);
        if let Lender::ByKey(granter) = &mut self.lender {
            leave_keys(granter, instance);
        }
    }

    fn forget(&mut self, instance: &str) {
        let Self { waiting, told, adaptive, .. } = self;
        told.retain(|holder, _| &*holder.instance != instance);
        waiting.retain(|holder, _| {
            let stays = &*holder.instance != instance;
            if let (false, Some(adaptive)) = (stays, &mut *adaptive) {
                adaptive.forget(holder);
            }
            stays
        });
    }

    /// Whether nothing of it can be in use any more; for one that lends nothing new.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        match &mut self.lender {
            Lender::Whole(granter) => granter.counted(now) == 0,
            Lender::ByKey(granter) => {
                granter.forget_calm(now);
                granter.keys() == 0
            }
        }
    }

    /// How many shares there are to report about.
    pub(super) fn lent(&self) -> usize {
        match &self.lender {
            Lender::Whole(_) => 1,
            Lender::ByKey(granter) => 1 + granter.keys(),
        }
    }

    /// The messages that are due, and to whom; about these keys only, if so many are given.
    pub(super) fn grant(
        &mut self,
        quantity: &Quantity,
        keys: Option<&BTreeSet<u64>>,
        now: Instant,
    ) -> Vec<(Arc<str>, pb::LeaseGrant)> {
        let message = |holder: HolderId, key, grant| {
            let wire = convert::lease_grant_to_wire(quantity, key, holder.number, &grant);
            (holder.instance, wire)
        };
        match &mut self.lender {
            Lender::Whole(granter) => {
                if let Some(adaptive) = &self.adaptive {
                    // Until it is known what was lent before, everybody keeps what it has.
                    let carries = granter.carries(now);
                    let slots = if carries { self.wanted.amount } else { adaptive.slots(now) };
                    granter.set_quantity(slots);
                }
                let grants = granter.grant(now).into_iter();
                let grants = grants.map(|(holder, grant)| message(holder, None, grant));
                let mut messages: Vec<_> = grants.collect();
                messages.extend(granter.asked().map(|holder| bare(quantity, holder, None, 0)));
                messages
            }
            Lender::ByKey(granter) => {
                let grants = match keys {
                    Some(keys) => keys.iter().flat_map(|&key| granter.grant_of(key, now)).collect(),
                    None => granter.grant(now),
                };
                let mut messages: Vec<_> = grants
                    .into_iter()
                    .map(|(holder, key, grant)| message(holder, Some(key), grant))
                    .collect();
                let proxies = granter.proxies(now);
                let bare = |holder: &HolderId, key| {
                    bare(quantity, holder, key, proxies.unwrap_or_default())
                };
                match keys {
                    Some(keys) => {
                        for &key in keys {
                            let unheard = granter.unheard_of(key);
                            messages.extend(unheard.map(|holder| bare(holder, Some(key))));
                        }
                    }
                    None => {
                        if let Some(proxies) = proxies {
                            for member in granter.members() {
                                let told = self.told.get(member);
                                let is_told = told
                                    .is_some_and(|(to, at)| *to == proxies && now < *at + TOLD_FOR);
                                if !is_told {
                                    self.told.insert(member.clone(), (proxies, now));
                                    messages.push(bare(member, None));
                                }
                            }
                        }
                        let unheard = granter.unheard();
                        messages.extend(unheard.map(|(holder, key)| bare(holder, Some(key))));
                    }
                }
                messages
            }
        }
    }
}

/// A message that lends nothing: it tells by how many proxies the quantity is shared, or asks for
/// a report.
fn bare(
    quantity: &Quantity,
    holder: &HolderId,
    key: Option<u64>,
    proxies: u32,
) -> (Arc<str>, pb::LeaseGrant) {
    let wire = pb::LeaseGrant {
        quantity: Some(convert::quantity_to_wire(quantity)),
        key,
        holder: holder.number,
        proxies,
        ..pb::LeaseGrant::default()
    };
    (Arc::clone(&holder.instance), wire)
}

/// The limit that is found out, if that is wanted: `former` with what it has learnt.
fn adaptive(
    wanted: &Wanted,
    former: Option<FleetConcurrency<HolderId>>,
    now: Instant,
) -> Option<FleetConcurrency<HolderId>> {
    let Sort::Slots { adaptive: Some(policy), .. } = wanted.sort else { return None };
    let mut adaptive = former.unwrap_or_else(|| FleetConcurrency::new(policy, now));
    adaptive.set_policy(policy);
    Some(adaptive)
}

fn leave_keys(granter: &mut KeyGranter<HolderId>, instance: &str) -> bool {
    let own = granter.members().iter().filter(|holder| &*holder.instance == instance);
    let own: Vec<_> = own.cloned().collect();
    for holder in &own {
        granter.leave(holder);
    }
    !own.is_empty()
}
