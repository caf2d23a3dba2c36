//! Lends the proxies their shares of what holds over the whole fleet.
//!
//! [`lb_core::lease`] decides who may use how much; this keeps a granter for each quantity
//! that the configuration wants, hears the reports, and sends the grants.
//!
//! | part | does |
//! |---|---|
//! | `account` | one quantity: its granter, and what is wanted of it |
//! | `contact` | the proxies that report, and the way to each |
//! | `notes` | who may have something, kept for the next start |
//! | `view` | who holds how much, for people |
//!
//! Reports are taken in under a lock that is held for microseconds. Grants are made by one
//! task: at every tick, and at once when a report says that somebody waits for it.

mod account;
mod contact;
mod holder_id;
mod notes;
#[cfg(test)]
mod tests;
mod view;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{
    lease::{self, Former, Heard, Quantity, Term, Wanted},
    model::{InstanceId, ProxyId},
};
use lb_proto::{convert, v1 as pb};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    account::Account,
    contact::{Contacts, Frame},
    notes::Notes,
    wanted::wanted,
};
pub(crate) use self::{
    holder_id::HolderId,
    view::{AdaptiveView, HolderView, LeaseView},
};
use crate::{
    clock::{millis32, now},
    registry::{Note, Registry},
};

/// Between two grants of one quantity, unless somebody waits.
const TICK: Duration = Duration::from_millis(100);
/// How long those who wait let others join them.
const URGENT_AFTER: Duration = Duration::from_millis(2);
/// Messages to one proxy that may wait; a proxy that does not read gets no grants.
pub(crate) const OUTBOX: usize = 4;
/// What reports a proxy may send in a period before they become less frequent.
const REPORTS_OF_A_PERIOD: u32 = 200;
/// How long a process that is new waits until it is noted. After that it is heard all the same,
/// though a start that follows soon may then not know of it.
const NOTED_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks whether somebody is to be struck out.
const TIDY_PERIOD: Duration = Duration::from_secs(1);
/// Terms begin with the time in seconds; a greater one, which a proxy tells, is none of a control
/// plane's.
const TERM_MAX: u64 = (1 << 40) - 1;
/// The longest period between reports; four must fit into a lease.
const PERIOD_MAX: Duration = Duration::from_millis(250);

/// What is lent of every quantity.
#[derive(Debug)]
pub(crate) struct Leases {
    state: Mutex<State>,
    /// Somebody waits for a grant.
    urgent: Notify,
    /// Who may write down who has something: one at a time.
    writing: Semaphore,
}

#[derive(Debug)]
struct State {
    /// Of this start.
    term: Term,
    /// An earlier start may have lent what is wanted when this one begins; also with an empty
    /// store, as a container without a volume has after a restart whose state is declared.
    former: Former,
    /// Who may have something of an earlier start, if all of those are known.
    former_holders: Option<Vec<InstanceId>>,
    notes: Notes,
    accounts: BTreeMap<Quantity, Account>,
    contacts: Contacts,
    /// The revision that accounts were last compared with.
    reconciled: Option<u64>,
    /// What somebody waits for, and of which keys.
    urgent: BTreeMap<Quantity, BTreeSet<u64>>,
    /// The largest number of a grant of an account that is gone.
    grants: u64,
    /// The term, once it was raised and until that is on disk.
    unstored_term: Option<Term>,
}

impl Leases {
    /// Lends nothing yet. `resumed` says that an earlier start of this control plane may
    /// have lent something, and `holders` to which processes, if that is known.
    pub(crate) fn new(term: u64, resumed: bool, holders: Option<Vec<InstanceId>>) -> Self {
        let state = State {
            term: Term(term),
            former: if resumed { Former::MayHaveLent } else { Former::Unknown },
            notes: Notes::new(holders.as_deref()),
            former_holders: holders,
            accounts: BTreeMap::new(),
            contacts: Contacts::default(),
            reconciled: None,
            urgent: BTreeMap::new(),
            grants: 0,
            unstored_term: None,
        };
        Self { state: Mutex::new(state), urgent: Notify::new(), writing: Semaphore::new(1) }
    }

    /// Notes durably that this process may have something, before anything of it is heard: the
    /// next start has to know of it. Those who come together share a write.
    pub(crate) async fn note(&self, instance: &str, registry: &Registry) {
        if self.lock().notes.join(instance, now()) {
            let written = self.write_notes(registry, |notes| notes.is_noted(instance));
            if timeout(NOTED_WITHIN, written).await.is_err() {
                debug!(instance, "it could not be noted in time that it has leases");
            }
        }
    }

    /// Writes down who may have something, unless that is on disk, or is not needed any more.
    async fn write_notes(&self, registry: &Registry, is_done: impl Fn(&Notes) -> bool) {
        let Ok(_turn) = self.writing.acquire().await else { return };
        let due = {
            let state = &mut *self.lock();
            if is_done(&state.notes) { None } else { state.notes_due() }
        };
        let Some(due) = due else { return };
        let holders = due.iter().filter_map(|instance| InstanceId::new(instance).ok()).collect();
        if registry.note(Note::Holders(holders)).await {
            self.lock().notes.written(due);
        }
    }

    /// Has it stored that the term was raised, so that the next start begins above it.
    async fn store_term(&self, registry: &Registry) {
        let Some(term) = self.lock().unstored_term else { return };
        if registry.note(Note::Term(term.0)).await {
            // It may have been raised again.
            self.lock().unstored_term.take_if(|unstored| *unstored == term);
        }
    }

    /// Takes a stream of a proxy's process. Grants go to `outbox` until another stream of
    /// the same process is opened.
    pub(crate) fn open(
        &self,
        proxy: &ProxyId,
        instance: &str,
        outbox: mpsc::Sender<pb::LeaseGrants>,
    ) {
        self.lock().contacts.open(proxy, instance, outbox, now());
    }

    /// Takes in what a process reports.
    pub(crate) fn hear(&self, instance: &str, message: &pb::LeaseReports) {
        let state = &mut *self.lock();
        if message.leaves {
            state.leave(instance);
            self.urgent.notify_one();
            return;
        }
        let Some(instance) = state.contacts.hear(instance, now()) else { return };
        let mut is_urgent = false;
        for report in &message.reports {
            is_urgent |= state.hear(&instance, report);
        }
        if message.frame > 0 {
            state.hear_frame(&instance, message.frame, message.rests_on);
        }
        if is_urgent {
            self.urgent.notify_one();
        }
    }

    /// Makes what is due now: to every quantity, or only to those that somebody waits for.
    fn grant(&self, registry: &Registry, all: bool) {
        let wanted = {
            let state = self.lock();
            // Read under the registry's own lock, which is never taken inside this one.
            let reconciled = state.reconciled;
            drop(state);
            registry.read(|view| {
                let revision = view.publisher.version().revision;
                (reconciled != Some(revision)).then(|| (revision, wanted(&view.catalog)))
            })
        };
        let state = &mut *self.lock();
        if let Some((revision, wanted)) = wanted {
            state.reconcile(wanted);
            state.reconciled = Some(revision);
        }
        state.grant(all);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn notes_due(&mut self) -> Option<BTreeSet<Arc<str>>> {
        let now = now();
        let reporting = self.contacts.instances();
        let having = self.accounts.values().flat_map(Account::instances);
        let known = reporting.chain(having).cloned().collect();
        let carries = self.accounts.values().any(|account| account.carries(now));
        self.notes.due(known, self.reconciled.is_none() || carries, now)
    }

    /// Opens, changes and closes accounts, so that they are as the configuration wants. One
    /// that is closed stays for as long as anything of it may be in use: it may be wanted
    /// again.
    fn reconcile(&mut self, wanted: BTreeMap<Quantity, Wanted>) {
        let now = now();
        for account in self.accounts.values_mut() {
            account.is_wanted = false;
        }
        for (quantity, wanted) in wanted {
            if let Some(account) = self.accounts.get_mut(&quantity)
                && account.change(wanted, now)
            {
                continue;
            }
            // One of another sort lent something else under this name.
            if let Some(former) = self.accounts.remove(&quantity) {
                self.grants = self.grants.max(former.last_number());
            }
            let former = match self.reconciled {
                None => self.former,
                Some(_) => Former::None,
            };
            let mut account = Account::open(self.term, wanted, former, now);
            account.number_after(self.grants);
            if let (Former::MayHaveLent, Some(holders)) = (former, &self.former_holders) {
                account.follow(holders);
            }
            self.accounts.insert(quantity, account);
        }
    }

    fn hear(&mut self, instance: &Arc<str>, wire: &pb::LeaseReport) -> bool {
        let quantity = wire.quantity.as_ref().and_then(convert::quantity_from_wire);
        let Some(quantity) = quantity else { return false };
        if wire.term != 0 && wire.term < self.term.0 && !self.is_known(instance) {
            self.notes.spoil();
        }
        // A proxy may be ahead, or behind.
        let Some(account) = self.accounts.get_mut(&quantity) else { return false };
        let holder = HolderId { instance: Arc::clone(instance), number: wire.holder };
        match account.hear(&holder, wire, now()) {
            Heard::Noted => false,
            Heard::Stale => {
                debug!(%quantity, instance = &**instance, "a late report about a lease");
                false
            }
            Heard::Urgent => {
                self.urgent.entry(quantity).or_default().extend(wire.key);
                true
            }
            Heard::Outranked(term) => {
                self.outrank(term);
                false
            }
        }
    }

    /// A process repeats what it has not spelled out, if what it means is what is known here.
    fn hear_frame(&mut self, instance: &Arc<str>, number: u64, rests_on: u64) {
        let holder = |number| HolderId { instance: Arc::clone(instance), number };
        let process = holder(0)..=holder(u64::MAX);
        let wanted = self.accounts.values().filter(|account| account.is_wanted);
        let known = wanted
            .filter_map(|account| account.last_heard(&process))
            .fold(0_u64, |sum, (holder, last)| {
                sum.wrapping_add(lease::rests_on(holder.number, last))
            });
        let renews = known == rests_on;
        self.contacts.note_frame(instance, number, renews);
        if renews {
            let now = now();
            for account in self.accounts.values_mut().filter(|account| account.is_wanted) {
                account.hear_again(&process, now);
            }
        }
    }

    /// Whether it is on the list of those who may have something of an earlier start.
    fn is_known(&self, instance: &str) -> bool {
        let listed = self.former_holders.iter().flatten();
        listed.map(InstanceId::as_str).any(|known| known == instance)
    }

    /// A proxy has had grants of a later start. The lock on the data directory says that
    /// none is running: the store was restored from a copy, or made anew.
    fn outrank(&mut self, outranked: Term) {
        let term = Term(outranked.0.saturating_add(1));
        warn!(
            former = outranked.0,
            "proxies have leases of a later start of a control plane, as after its store was \
             replaced; nothing new is lent until those have ended"
        );
        let now = now();
        self.term = term;
        // What no control plane ever began with is not kept beyond this process.
        self.unstored_term = Some(term).filter(|term| term.0 <= TERM_MAX);
        self.former_holders = None;
        self.notes.spoil();
        for account in self.accounts.values_mut() {
            let is_wanted = account.is_wanted;
            *account = Account::open(term, account.wanted, Former::MayHaveLent, now);
            account.is_wanted = is_wanted;
        }
    }

    /// A process is done, with nothing in use.
    fn leave(&mut self, instance: &str) {
        if self.contacts.forget(instance) {
            info!(instance, "it has given back its leases");
        }
        for (quantity, account) in &mut self.accounts {
            if account.leave(instance) {
                self.urgent.entry(quantity.clone()).or_default();
            }
        }
    }

    fn grant(&mut self, all: bool) {
        let now = now();
        for lost in self.contacts.forget_silent(now) {
            for account in self.accounts.values_mut() {
                account.lose(&lost);
            }
        }
        let urgent = std::mem::take(&mut self.urgent);
        let mut letters: BTreeMap<Arc<str>, Vec<pb::LeaseGrant>> = BTreeMap::new();
        for (quantity, account) in &mut self.accounts {
            let urgent = urgent.get(quantity);
            if !all && urgent.is_none() {
                continue;
            }
            if account.is_wanted {
                let keys = urgent.filter(|_| !all);
                for (instance, grant) in account.grant(quantity, keys, now) {
                    letters.entry(instance).or_default().push(grant);
                }
            }
        }
        if all {
            let grants = &mut self.grants;
            self.accounts.retain(|_, account| {
                let stays = account.is_wanted || !account.is_over(now);
                if !stays {
                    *grants = account.last_number().max(*grants);
                }
                stays
            });
        }
        if all {
            for instance in self.contacts.unanswered() {
                letters.entry(Arc::clone(instance)).or_default();
            }
        }
        let (period_ms, term) = (millis32(self.period()), self.term.0);
        for (instance, grants) in letters {
            let Frame { number: frame, renews, .. } = self.contacts.answer_frame(&instance);
            let letter = pb::LeaseGrants { grants, period_ms, frame, renews, term };
            self.contacts.send(&instance, letter);
        }
    }

    /// How often proxies report: the more there is to tell, the less often.
    fn period(&self) -> Duration {
        let wanted = self.accounts.values().filter(|account| account.is_wanted);
        let lent: usize = wanted.map(Account::lent).sum();
        let lent = u32::try_from(lent).unwrap_or(u32::MAX).max(REPORTS_OF_A_PERIOD);
        (TICK * (lent / REPORTS_OF_A_PERIOD)).min(PERIOD_MAX)
    }
}

/// Lends until it is told to stop.
pub(crate) async fn run(leases: Arc<Leases>, registry: Registry, stop: CancellationToken) {
    // A disk that is slow keeps nobody waiting for grants.
    tokio::join!(lend(&leases, &registry, &stop), tidy(&leases, &registry, &stop));
}

/// Strikes out those who have nothing any more, and has a raised term stored.
async fn tidy(leases: &Leases, registry: &Registry, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = sleep(TIDY_PERIOD) => {
                leases.store_term(registry).await;
                leases.write_notes(registry, |_| false).await;
            }
            () = stop.cancelled() => return,
        }
    }
}

async fn lend(leases: &Leases, registry: &Registry, stop: &CancellationToken) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut revisions = registry.revisions();
    loop {
        tokio::select! {
            _ = tick.tick() => leases.grant(registry, true),
            changed = revisions.changed() => {
                if changed.is_err() {
                    return;
                }
                leases.grant(registry, false);
            }
            () = leases.urgent.notified() => {
                sleep(URGENT_AFTER).await;
                leases.grant(registry, false);
            }
            () = stop.cancelled() => return,
        }
    }
}
