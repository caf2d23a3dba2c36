//! Membership and waiting, in virtual time.

use lb_core::model::Key;

use super::*;

const ANSWERED: Step = Step::Answered { lag: None };

struct World {
    fleet: Arc<Fleet>,
    revision: watch::Sender<u64>,
    events: Arc<EventLog>,
}

fn world(revision: u64) -> World {
    let revision = watch::Sender::new(revision);
    let events = Arc::new(EventLog::new());
    let fleet = Arc::new(Fleet::new(revision.subscribe(), Arc::clone(&events)));
    World { fleet, revision, events }
}

fn info(id: &str, instance: &str) -> ProxyInfo {
    ProxyInfo {
        id: ProxyId::new(id).unwrap(),
        instance: InstanceId::new(instance).unwrap(),
        replaces: String::new(),
        build_version: "test".to_owned(),
        listen_addresses: Vec::new(),
        admin_address: String::new(),
        peer_address: String::new(),
        elsewhere: false,
        workers: 1,
        writes_access_log: false,
        held_source: "none",
        stale_since: Some(present()),
    }
}

/// A connected proxy. Its process took over from the process `replaces`; from none if that is
/// empty.
pub(crate) fn view(id: ProxyId, instance: InstanceId, replaces: &str) -> ProxyView {
    let info = ProxyInfo { id, instance, replaces: replaces.to_owned(), ..info("p", "i") };
    ProxyView {
        info,
        state: ProxyState::Synced,
        progress: Progress::default(),
        connected: present(),
        last_seen: Duration::ZERO,
        lag: Duration::ZERO,
    }
}

fn applied(revision: u64) -> Progress {
    Progress { applied_revision: revision, sent_revision: revision, ..Progress::default() }
}

impl World {
    fn join(&self, id: &str) -> Membership {
        self.fleet.join(info(id, "i1")).unwrap()
    }

    fn wait(&self, revision: u64) -> Waiter {
        Waiter::new(Arc::clone(&self.fleet), revision, Duration::from_secs(10))
    }

    fn states(&self) -> Vec<&'static str> {
        self.fleet.list().iter().map(|proxy| proxy.state.name()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn states_follow_the_registry() {
    let world = world(5);
    let proxy = world.join("p1");
    assert_eq!(world.states(), ["behind"]);
    assert!(world.fleet.list()[0].info.stale_since.is_some());
    proxy.advance(applied(5), ANSWERED);
    assert_eq!(world.states(), ["synced"]);
    assert_eq!(world.fleet.list()[0].info.stale_since, None, "it has caught up");
    world.revision.send_replace(6);
    assert_eq!(world.states(), ["behind"]);
    let rejection = Rejection {
        key: Key::new("pool", "default"),
        revision: 6,
        code: "unknown_algorithm".to_owned(),
        message: "unknown algorithm".to_owned(),
    };
    proxy.advance(Progress { rejections: vec![rejection], ..applied(6) }, ANSWERED);
    assert_eq!(world.states(), ["rejected"]);
    drop(proxy);
    assert_eq!(world.states(), ["lost"]);
    let mut reader = world.events.reader(1000);
    let types: Vec<&str> = reader.next().await.iter().map(|event| event.what.name()).collect();
    assert_eq!(types, ["proxy_connected", "proxy_synced", "proxy_rejected", "proxy_lost"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_live_proxy_of_one_id_is_refused_by_name() {
    let world = world(1);
    let first = world.join("p1");
    let refusal = world.fleet.join(info("p1", "i2")).unwrap_err().to_string();
    assert!(refusal.contains("p1") && refusal.contains("i1"), "{refusal}");
    let again = world.fleet.join(info("p1", "i1")).unwrap();
    assert!(first.replaced().is_cancelled(), "the same process came back on a new stream");
    drop(first);
    assert_eq!(world.states(), ["behind"], "the end of the old stream means nothing");
    let takes_over = ProxyInfo { replaces: "i1".to_owned(), ..info("p1", "i2") };
    let heir = world.fleet.join(takes_over).unwrap();
    assert!(again.replaced().is_cancelled());
    drop(heir);
    let after_its_end = ProxyInfo { replaces: "i2".to_owned(), ..info("p1", "i4") };
    drop(world.fleet.join(after_its_end).unwrap());
    let mut reader = world.events.reader(1000);
    let events = reader.next().await;
    let connected = events.iter().filter(|event| event.what.name() == "proxy_connected");
    let why: Vec<&str> = connected.map(|event| event.reason.code.as_str()).collect();
    assert_eq!(why, ["", "", "took_over", "took_over"]);
    world.fleet.join(info("p1", "i3")).expect("a lost proxy's id is free");
}

#[tokio::test(start_paused = true)]
async fn the_live_ones_are_known_in_order() {
    let world = world(1);
    let live = world.fleet.members();
    let ids = || live.borrow().iter().map(ToString::to_string).collect::<Vec<_>>();
    let (b, a) = (world.join("b"), world.join("a"));
    assert_eq!(ids(), ["a", "b"]);
    drop(a);
    assert_eq!(ids(), ["b"]);
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn a_lost_proxy_is_listed_for_a_day() {
    let world = world(1);
    drop(world.join("p1"));
    tokio::time::advance(LOST_FOR - Duration::from_secs(1)).await;
    assert!(world.fleet.forget_long_gone().is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(world.fleet.forget_long_gone(), [ProxyId::new("p1").unwrap()]);
    assert!(world.states().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_was_lost_before_a_revision_lacks_it_until_it_is_forgotten() {
    let world = world(5);
    let (stays, goes) = (world.join("p1"), world.join("p2"));
    stays.advance(applied(5), ANSWERED);
    goes.advance(applied(5), ANSWERED);
    drop(goes);
    let lacking = |revision| {
        let lacking = world.fleet.lacking(revision).into_iter();
        lacking.map(|laggard| (laggard.proxy.to_string(), laggard.lost)).collect::<Vec<_>>()
    };
    assert_eq!(lacking(5), []);
    world.revision.send_replace(6);
    assert_eq!(lacking(6), [("p1".to_owned(), false), ("p2".to_owned(), true)]);
    assert!(world.fleet.progress(6).laggards.iter().all(|laggard| !laggard.lost));
    stays.advance(applied(6), ANSWERED);
    assert_eq!(lacking(6), [("p2".to_owned(), true)]);
    let back = world.join("p2");
    assert_eq!(lacking(6), [("p2".to_owned(), false)]);
    back.advance(applied(6), ANSWERED);
    drop(back);
    assert_eq!(lacking(6), [], "what it has applied it knows also while it is lost");
    world.revision.send_replace(7);
    stays.advance(applied(7), ANSWERED);
    tokio::time::advance(LOST_FOR).await;
    world.fleet.forget_long_gone();
    assert_eq!(lacking(7), []);
}

#[tokio::test(start_paused = true)]
async fn with_no_proxy_there_is_nothing_to_wait_for() {
    let world = world(1);
    // Lost before the revision was committed: nobody waits for it.
    drop(world.join("p1"));
    world.revision.send_replace(2);
    let progress = world.wait(2).next().await.unwrap();
    assert!(progress.done);
    assert_eq!((progress.proxies, progress.applied), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_last_one_has_applied() {
    let world = world(2);
    let (a, b) = (world.join("a"), world.join("b"));
    let mut wait = world.wait(2);
    assert_eq!(wait.next().await.unwrap().laggards.len(), 2);
    a.advance(applied(2), ANSWERED);
    let progress = wait.next().await.unwrap();
    assert_eq!((progress.applied, progress.done), (1, false));
    assert_eq!(progress.laggards[0].proxy.as_str(), "b");
    // Somebody who joins meanwhile is waited for too.
    let c = world.join("c");
    assert_eq!(wait.next().await.unwrap().proxies, 3);
    b.advance(applied(3), ANSWERED);
    c.advance(applied(2), ANSWERED);
    let end = wait.finish().await;
    assert_eq!((end.applied, end.done), (3, true));
    assert_eq!(wait.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_lost_after_the_commit_is_named_and_never_counts() {
    let world = world(2);
    let (a, b) = (world.join("a"), world.join("b"));
    let mut wait = world.wait(2);
    wait.next().await.unwrap();
    a.advance(applied(2), ANSWERED);
    drop(b);
    let started = Instant::now();
    let end = wait.finish().await;
    assert_eq!(started.elapsed(), Duration::from_secs(10), "it may come back until then");
    assert!(!end.done);
    assert_eq!((end.laggards.len(), end.laggards[0].lost), (1, true));
}

#[tokio::test(start_paused = true)]
async fn a_lost_proxy_that_comes_back_and_applies_ends_the_wait() {
    let world = world(2);
    drop(world.join("a"));
    let mut wait = world.wait(2);
    assert!(!wait.next().await.unwrap().done);
    let back = world.join("a");
    back.advance(applied(2), ANSWERED);
    assert!(wait.finish().await.done);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_this_revision_ends_the_wait_at_once() {
    let world = world(3);
    let (a, _b) = (world.join("a"), world.join("b"));
    let rejection = |revision| Rejection {
        key: Key::new("pool", "x"),
        revision,
        code: "unknown_algorithm".to_owned(),
        message: "no".to_owned(),
    };
    a.advance(Progress { rejections: vec![rejection(2)], ..applied(2) }, ANSWERED);
    let mut wait = world.wait(3);
    assert!(!wait.next().await.unwrap().done, "what was refused before is no answer");
    a.advance(Progress { rejections: vec![rejection(2), rejection(3)], ..applied(3) }, ANSWERED);
    let progress = wait.next().await.unwrap();
    assert!(progress.done);
    assert_eq!(progress.rejections.len(), 1);
    assert_eq!(progress.rejections[0].0.as_str(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_refused_state_ends_the_wait_too() {
    let world = world(3);
    let a = world.join("a");
    let refusal = Some("would empty pool default".to_owned());
    a.advance(Progress { refusal, ..applied(0) }, ANSWERED);
    let progress = world.wait(3).next().await.unwrap();
    assert!(progress.done);
    assert_eq!(progress.rejections[0].1.code, "state_refused");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_waits_for_backends_that_can_serve_is_waited_for() {
    let world = world(3);
    let a = world.join("a");
    let refusal = Some("would leave pool default without a backend that can serve".to_owned());
    a.advance(Progress { refusal, awaits_consent: true, ..applied(0) }, ANSWERED);
    let mut wait = world.wait(3);
    let progress = wait.next().await.unwrap();
    assert!(!progress.done && progress.rejections.is_empty(), "{progress:?}");
    assert_eq!(progress.laggards[0].state(), "rejected");
    assert!(progress.laggards[0].refusal.is_some());
    a.advance(applied(3), ANSWERED);
    assert!(wait.finish().await.done);
}

#[tokio::test(start_paused = true)]
async fn who_was_lost_before_is_named_and_not_waited_for() {
    let world = world(5);
    let (stays, goes) = (world.join("p1"), world.join("p2"));
    goes.advance(applied(5), ANSWERED);
    drop(goes);
    world.revision.send_replace(6);
    stays.advance(applied(6), ANSWERED);
    let progress = world.wait(6).next().await.unwrap();
    assert_eq!((progress.proxies, progress.applied, progress.done), (1, 1, true));
    let lost: Vec<_> =
        progress.lost.iter().map(|l| (l.proxy.as_str(), l.applied_revision)).collect();
    assert_eq!(lost, [("p2", 5)]);
    assert!(world.wait(5).next().await.unwrap().lost.is_empty(), "that one it has applied");
}

#[tokio::test(start_paused = true)]
async fn a_wait_after_a_restart_counts_those_who_are_on_their_way_back() {
    let world = world(5);
    let ids = ["p1", "p2"].map(|id| ProxyId::new(id).unwrap());
    world.fleet.expect(ids.to_vec(), Instant::now() + Duration::from_secs(8));
    let p1 = world.join("p1");
    p1.advance(applied(5), ANSWERED);
    let mut wait = world.wait(5);
    let progress = wait.next().await.unwrap();
    assert_eq!((progress.proxies, progress.applied, progress.done), (2, 1, false));
    let away = &progress.laggards[0];
    assert_eq!((away.proxy.as_str(), away.state()), ("p2", "away"));
    // One comes back; it is a proxy like any other from then on.
    let p2 = world.join("p2");
    p2.advance(applied(5), ANSWERED);
    let progress = wait.finish().await;
    assert_eq!((progress.proxies, progress.applied, progress.done), (2, 2, true));
    assert!(progress.laggards.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_come_back_after_a_restart_is_not_waited_for_for_ever() {
    let world = world(5);
    let began = Instant::now();
    let id = ProxyId::new("gone").unwrap();
    world.fleet.expect(vec![id], began + Duration::from_secs(8));
    let progress = world.wait(5).finish().await;
    assert_eq!((progress.proxies, progress.done), (0, true));
    assert_eq!(began.elapsed(), Duration::from_secs(8));
    // A shorter wait ends with its name.
    let world = self::world(5);
    let id = ProxyId::new("gone").unwrap();
    world.fleet.expect(vec![id], Instant::now() + Duration::from_secs(60));
    let progress = world.wait(5).finish().await;
    assert_eq!((progress.proxies, progress.done), (1, false));
    assert_eq!(progress.laggards[0].state(), "away");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_said_goodbye_is_waited_for_by_nobody_and_listed_for_an_hour() {
    let world = world(5);
    let (stays, mut goes) = (world.join("p1"), world.join("p2"));
    stays.advance(applied(5), ANSWERED);
    goes.advance(applied(5), ANSWERED);
    world.revision.send_replace(6);
    goes.say_goodbye();
    assert_eq!(world.states(), ["behind", "behind"], "it is there until its stream ends");
    drop(goes);
    assert_eq!(world.states(), ["behind", "stopped"]);
    stays.advance(applied(6), ANSWERED);
    let end = world.wait(6).finish().await;
    assert_eq!((end.proxies, end.applied, end.done), (1, 1, true));
    assert_eq!(world.fleet.lacking(6), []);
    let ids = |ids: &[ProxyId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ids(&world.fleet.accounted_for()), ["p1", "p2"]);
    assert_eq!(ids(&world.fleet.live()), ["p1"]);
    tokio::time::advance(STOPPED_FOR - Duration::from_secs(1)).await;
    assert!(world.fleet.forget_long_gone().is_empty());
    drop(world.join("p2"));
    assert_eq!(world.states()[1], "lost", "it was there again, and says nothing this time");
    let mut back = world.join("p2");
    back.say_goodbye();
    drop(back);
    tokio::time::advance(STOPPED_FOR).await;
    assert_eq!(ids(&world.fleet.forget_long_gone()), ["p2"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_connected_can_be_forgotten() {
    let world = world(5);
    let proxy = world.join("p1");
    let refusal = world.fleet.forget("p1", false).unwrap_err().to_string();
    assert!(refusal.contains("p1 is connected") && refusal.contains("SIGTERM"), "{refusal}");
    drop(proxy);
    world.revision.send_replace(6);
    let mut members = world.fleet.members();
    members.mark_unchanged();
    assert_eq!(world.fleet.forget("p1", true).unwrap().state, ProxyState::Lost);
    assert_eq!((world.states().len(), world.fleet.lacking(6).len()), (1, 1));
    world.fleet.forget("p1", false).unwrap();
    assert!(members.has_changed().unwrap(), "whoever waits for it looks again");
    assert_eq!((world.states().len(), world.fleet.lacking(6).len()), (0, 0));
    let refusal = world.fleet.forget("p1", false).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "proxy p1 does not exist; none has connected yet, see lb-data-plane --help"
    );
    drop(world.join("p2"));
    let refusal = world.fleet.forget("no\nid", false).unwrap_err().to_string();
    assert!(refusal.ends_with("does not exist; known are p2"), "{refusal}");
}
