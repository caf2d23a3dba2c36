use lb_core::{
    lease::{Holder, OnLoss, QuantityKind, Slots, Sort, Terms},
    model::ProxyId,
};

use super::*;

const HOLD: Duration = Duration::from_secs(30);

/// A proxy that holds slots of the one quantity.
struct Proxy {
    name: &'static str,
    number: u64,
    slots: Slots,
    inbox: mpsc::Receiver<pb::LeaseGrants>,
}

struct World {
    leases: Leases,
    quantity: Quantity,
}

impl World {
    /// With so many slots of a pool.
    fn new(slots: u64) -> Self {
        let quantity =
            Quantity { kind: QuantityKind::Pool, name: "default".into(), incarnation: 0 };
        let world = Self { leases: Leases::new(1, false, None), quantity };
        world.want(None);
        world.want(Some(slots));
        world
    }

    async fn gathered(self) -> Self {
        tokio::time::advance(TICK).await;
        self
    }

    fn want(&self, slots: Option<u64>) {
        let wanted = |amount| Wanted { amount, sort: Sort::Slots { hold: HOLD, adaptive: None } };
        let wanted = slots.map(|slots| (self.quantity.clone(), wanted(slots)));
        let state = &mut *self.leases.lock();
        state.reconcile(wanted.into_iter().collect());
        state.reconciled = Some(1);
    }

    /// As `want`, as the first that the control plane finds in its store.
    fn want_first(&self, slots: u64) {
        self.leases.lock().reconciled = None;
        self.want(Some(slots));
    }

    fn proxy(&self, name: &'static str) -> Proxy {
        let inbox = self.open(name);
        let wanted = Wanted { amount: 0, sort: Sort::Slots { hold: HOLD, adaptive: None } };
        let holder = Holder::new(wanted.terms(), OnLoss::SafeShare, 0, 1, now());
        Proxy { name, number: 1, slots: Slots::new(holder, now()), inbox }
    }

    fn open(&self, name: &'static str) -> mpsc::Receiver<pb::LeaseGrants> {
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        self.leases.open(&ProxyId::new(name).unwrap(), name, outbox);
        inbox
    }

    fn report(&self, proxy: &mut Proxy) {
        let report = proxy.slots.report(now());
        let report = convert::lease_report_to_wire(&self.quantity, None, proxy.number, &report, 0);
        let message = pb::LeaseReports {
            proxy_id: proxy.name.to_owned(),
            instance_id: proxy.name.to_owned(),
            reports: vec![report],
            ..pb::LeaseReports::default()
        };
        self.leases.hear(proxy.name, &message);
    }

    fn grant(&self) {
        self.leases.lock().grant(true);
    }

    fn leave(&self, proxy: &Proxy) {
        let message = pb::LeaseReports {
            instance_id: proxy.name.to_owned(),
            leaves: true,
            ..pb::LeaseReports::default()
        };
        self.leases.hear(proxy.name, &message);
    }

    fn granted(&self) -> Vec<(Option<String>, u64)> {
        let view = self.leases.view(QuantityKind::Pool, "default", 0).unwrap();
        let holder = |holder: HolderView| (holder.proxy.map(|id| id.to_string()), holder.granted);
        view.holders.into_iter().map(holder).collect()
    }
}

impl Proxy {
    /// Takes in what has arrived; what it may use then.
    fn usable(&mut self) -> u64 {
        while let Ok(message) = self.inbox.try_recv() {
            for wire in message.grants.iter().filter(|wire| wire.holder == self.number) {
                if let Some(grant) = convert::lease_grant_from_wire(wire) {
                    self.slots.apply(&grant, now()).ok();
                }
            }
        }
        self.slots.holder().usable(now())
    }
}

#[tokio::test(start_paused = true)]
async fn slots_are_shared_and_those_of_a_proxy_that_leaves_are_free_at_once() {
    let world = World::new(10).gathered().await;
    let mut first = world.proxy("p1");
    world.report(&mut first);
    world.grant();
    assert_eq!(first.usable(), 10);
    let mut second = world.proxy("p2");
    for _ in 0..3 {
        world.report(&mut second);
        world.report(&mut first);
        world.grant();
        let sum = first.usable() + second.usable();
        assert!(sum <= 10, "{sum}");
    }
    assert_eq!((first.usable(), second.usable()), (5, 5));
    assert_eq!(world.granted(), [(Some("p1".to_owned()), 5), (Some("p2".to_owned()), 5)]);
    world.leave(&second);
    world.grant();
    assert_eq!(first.usable(), 10, "nothing was asked for, and it is told all the same");
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_again_is_not_lent_twice() {
    let world = World::new(10).gathered().await;
    let mut first = world.proxy("p1");
    world.report(&mut first);
    world.grant();
    assert_eq!(first.usable(), 10);
    world.want(None);
    world.grant();
    assert!(world.leases.view(QuantityKind::Pool, "default", 0).is_none());
    world.want(Some(10));
    // The same process holds it anew, and says what began before: nothing waits for what it
    // might have had.
    let mut again = world.proxy("p1");
    again.number = 2;
    again.slots.set_in_use(8, now());
    let mut second = world.proxy("p2");
    for in_use in [8, 3, 0] {
        again.slots.set_in_use(in_use, now());
        for _ in 0..3 {
            world.report(&mut again);
            world.report(&mut second);
            world.grant();
            let used = again.usable().max(in_use) + second.usable();
            assert!(used <= 10, "{used}");
        }
        assert!(second.usable() > 0, "beside {in_use}");
    }
    // A process that was not heard of since keeps what it had.
    let mut silent = world.proxy("p3");
    world.report(&mut silent);
    world.grant();
    world.want(None);
    world.grant();
    world.want(Some(10));
    again.number = 3;
    world.report(&mut again);
    world.grant();
    assert!(again.usable() + second.usable() <= 10);
}

#[tokio::test(start_paused = true)]
async fn a_later_start_is_told_of_by_its_leases() {
    let world = World::new(10);
    let mut first = world.proxy("p1");
    world.report(&mut first);
    let later = lease::Grant {
        term: Term(7),
        id: 40,
        answers: 1,
        lease: Duration::from_secs(1),
        amount: 3,
        safe: 3,
        carried: false,
        proxies: None,
    };
    first.slots.apply(&later, now()).unwrap();
    world.report(&mut first);
    world.report(&mut first);
    world.grant();
    assert_eq!(first.usable(), 3, "only what it has is prolonged");
    assert_eq!(first.slots.holder().usable(now()), 3);
    assert_eq!(world.leases.lock().term, Term(8));
}

#[tokio::test(start_paused = true)]
async fn the_hot_keys_of_a_limit_that_is_gone_are_forgotten() {
    let quantity = Quantity { kind: QuantityKind::Limit, name: "api".into(), incarnation: 1 };
    let leases = Leases::new(1, false, None);
    let wanted = Wanted { amount: 1_000_000, sort: Sort::RateByKey { burst: 1 } };
    leases.lock().reconcile([(quantity.clone(), wanted)].into());
    let (outbox, mut inbox) = mpsc::channel(OUTBOX);
    leases.open(&ProxyId::new("p1").unwrap(), "p1", outbox);
    let report = |key, sequence, demand| pb::LeaseReport {
        quantity: Some(convert::quantity_to_wire(&quantity)),
        key,
        holder: 1,
        sequence,
        demand,
        ..pb::LeaseReport::default()
    };
    let reports = vec![report(None, 0, 0), report(Some(7), 1, 5_000_000)];
    let message = pb::LeaseReports { instance_id: "p1".into(), reports, ..Default::default() };
    leases.hear("p1", &message);
    leases.lock().grant(true);
    let grants = inbox.try_recv().unwrap().grants;
    assert!(grants.iter().any(|grant| grant.key == Some(7)), "{grants:?}");
    leases.lock().reconcile(BTreeMap::new());
    leases.lock().grant(true);
    assert_eq!(leases.lock().accounts.len(), 1, "what was lent may be in use");
    tokio::time::advance(Duration::from_secs(60)).await;
    leases.lock().grant(true);
    assert_eq!(leases.lock().accounts.len(), 0);
}

/// Two proxies that have half of ten slots each.
async fn shared() -> (World, Proxy, Proxy) {
    let world = World::new(10).gathered().await;
    let (mut early, mut late) = (world.proxy("p1"), world.proxy("p2"));
    for _ in 0..3 {
        world.report(&mut early);
        world.report(&mut late);
        world.grant();
        assert!(early.usable() + late.usable() <= 10);
    }
    assert_eq!((early.usable(), late.usable()), (5, 5));
    (world, early, late)
}

/// As after a restart of a container without a volume, whose state is declared.
#[tokio::test(start_paused = true)]
async fn what_a_lost_store_lent_is_not_lent_twice() {
    let (world, mut early, mut late) = shared().await;

    let anew = World { leases: Leases::new(2, false, None), quantity: world.quantity.clone() };
    anew.want(Some(10));
    early.inbox = anew.open("p1");
    late.inbox = anew.open("p2");
    tokio::time::advance(TICK).await;
    // The other one takes its time.
    anew.report(&mut early);
    anew.grant();
    assert_eq!(early.usable(), 5);
    tokio::time::advance(Duration::from_millis(1200)).await;
    anew.report(&mut early);
    anew.grant();
    assert!(early.usable() <= 5, "there was another before: what it lent may be in use for long");
    tokio::time::advance(HOLD).await;
    anew.report(&mut early);
    anew.grant();
    assert_eq!(early.usable(), 10);
}

/// A control plane that follows another, which noted these processes.
async fn followed(noted: &[&str]) -> (World, Proxy, Proxy) {
    let (world, mut early, mut late) = shared().await;
    let noted = noted.iter().map(|id| InstanceId::new(id).unwrap()).collect();
    let anew = World { leases: Leases::new(2, true, Some(noted)), quantity: world.quantity };
    anew.want_first(10);
    early.inbox = anew.open("p1");
    late.inbox = anew.open("p2");
    // The first needs all of them.
    assert!(early.slots.set_waiting(20, now()));
    (anew, early, late)
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_slots_move_again_once_all_were_heard_who_may_have_some() {
    let (world, mut early, mut late) = followed(&["p1", "p2"]).await;
    for round in 0..4 {
        tokio::time::advance(TICK / 10).await;
        world.report(&mut early);
        world.grant();
        assert_eq!(early.usable(), 5, "the other was not heard, in round {round}");
    }
    for round in 0..8 {
        // At once those that are needed no more; the last of them when that has lasted.
        tokio::time::advance(if round < 4 { TICK / 10 } else { TICK }).await;
        world.report(&mut late);
        world.report(&mut early);
        world.grant();
        let sum = early.usable() + late.usable();
        assert!(sum <= 10, "{sum}");
        assert!(round < 3 || early.usable() > 5, "{} in round {round}", early.usable());
    }
    assert_eq!((early.usable(), late.usable()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_what_a_silent_one_may_have_is_not_lent() {
    let (world, mut early, mut late) = followed(&["p1", "p2", "p3"]).await;
    // There were 14 before, and the third has the rest.
    world.want(Some(14));
    let started = now();
    while now() < started + HOLD + Terms::LEASE {
        world.report(&mut late);
        world.report(&mut early);
        world.grant();
        assert!(early.usable() + late.usable() <= 10);
        tokio::time::advance(2 * TICK).await;
    }
    assert_eq!((early.usable(), late.usable()), (10, 0), "what they have moves");
    for _ in 0..4 {
        tokio::time::advance(TICK).await;
        world.report(&mut late);
        world.report(&mut early);
        world.grant();
    }
    assert_eq!((early.usable(), late.usable()), (14, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_one_that_was_not_noted_spoils_the_list() {
    let (world, mut early, mut late) = followed(&["p1"]).await;
    world.want(Some(14));
    for _ in 0..8 {
        world.report(&mut late);
        world.report(&mut early);
        world.grant();
        assert!(early.usable() + late.usable() <= 10);
        tokio::time::advance(2 * TICK).await;
    }
    let due = world.leases.lock().notes_due().unwrap();
    assert_eq!(due.len(), 3, "somebody may be missing: {due:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frame_prolongs_what_it_rests_on_and_is_told_if_that_is_not_known() {
    let world = World::new(10).gathered().await;
    let mut proxy = world.proxy("p1");
    for _ in 0..2 {
        world.report(&mut proxy);
        world.grant();
        assert_eq!(proxy.usable(), 10);
    }
    let last = proxy.slots.holder().last_report();
    let mut answer = |number, last| {
        let message = pb::LeaseReports {
            instance_id: "p1".to_owned(),
            frame: number,
            rests_on: lease::rests_on(1, last),
            ..pb::LeaseReports::default()
        };
        world.leases.hear("p1", &message);
        world.grant();
        let letter = proxy.inbox.try_recv().unwrap();
        assert_eq!((letter.frame, letter.term), (number, 1));
        (letter.renews, letter.grants.len())
    };
    assert_eq!(answer(1, last), (true, 0), "nothing has changed");
    assert_eq!(answer(2, last + 1), (false, 0), "a report was lost");
    assert_eq!(answer(3, last), (true, 0));
    world.want(None);
    assert_eq!(answer(4, last), (false, 0), "it is not wanted any more");
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_no_more_is_not_lent_after_a_later_start_was_heard_of() {
    let world = World::new(10).gathered().await;
    let mut proxy = world.proxy("p1");
    world.report(&mut proxy);
    world.grant();
    assert_eq!(proxy.usable(), 10);
    // It may have something for a while.
    world.want(None);
    let report = convert::lease_report_to_wire(
        &world.quantity,
        None,
        proxy.number,
        &proxy.slots.report(now()),
        0,
    );
    let report = pb::LeaseReport { term: 41, ..report };
    let message = pb::LeaseReports {
        instance_id: "p1".to_owned(),
        reports: vec![report],
        ..pb::LeaseReports::default()
    };
    world.leases.hear("p1", &message);
    let state = world.leases.lock();
    assert_eq!(state.term, Term(42));
    assert!(state.accounts.values().all(|account| !account.is_wanted));
}

#[tokio::test(start_paused = true)]
async fn a_term_that_was_raised_is_kept_for_the_next_start() {
    use crate::store::faulty::{Fault, Faulty};
    let faulty = Faulty::new();
    let start = || Registry::start(Box::new(faulty.clone()), Arc::default()).unwrap();
    let (registry, world) = (start(), World::new(10));
    let later = Term(registry.term() + 1000);
    world.leases.lock().outrank(later);
    faulty.will(&[Fault::Term]);
    world.leases.store_term(&registry).await;
    assert_eq!(faulty.held().term, registry.term(), "it could not be stored");
    world.leases.store_term(&registry).await;
    assert_eq!(faulty.held().term, later.0 + 1);
    assert!(start().term() > later.0);
    world.leases.lock().outrank(Term(u64::MAX));
    world.leases.store_term(&registry).await;
    assert!(faulty.held().term <= later.0 + 2, "no control plane has had such a term");
}
