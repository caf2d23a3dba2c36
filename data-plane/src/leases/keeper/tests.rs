//! What is sent to the control plane and when, without one.

use lb_core::{
    lease::{QuantityKind, Sort, Wanted},
    limit::MICROS,
};
use tokio::sync::{Notify, mpsc::Receiver};

use super::*;
use crate::{leases::RateLease, worker::Admission};

/// A keeper of one rate, with a stream.
struct Talk {
    keeper: Keeper,
    line: Line,
    outbox: Receiver<pb::LeaseReports>,
    lease: Arc<RateLease>,
    start: Instant,
}

fn quantity() -> Quantity {
    Quantity { kind: QuantityKind::Limit, name: "l".into(), incarnation: 1 }
}

fn stream() -> (Line, Receiver<pb::LeaseReports>) {
    let (reports, outbox) = mpsc::channel(OUTBOX);
    (Line { reports, opening: None, grants: None }, outbox)
}

impl Talk {
    fn new() -> Self {
        let leases = Arc::new(Leases::new(1));
        let wanted = Wanted { amount: 100 * MICROS, sort: Sort::Rate { burst: 100 } };
        let lease = leases.rate(&quantity(), wanted, 1);
        let fleet = Arc::new(Fleet {
            workers: Box::new([]),
            changed: Notify::new(),
            asked_for_room: Default::default(),
            running: 0.into(),
            admission: Admission::new(1, 0),
            pipes_max: 0,
            replays_max: 0,
            access_log: None,
        });
        let start = now();
        let keeper = Keeper {
            leases,
            fleet,
            id: ProxyId::new("p1").unwrap(),
            instance: InstanceId::new("i1").unwrap(),
            period: PERIOD,
            reported: BTreeMap::new(),
            frames: Frames::default(),
            saved: watch::channel(Remembered::default()).0,
            saved_at: start,
        };
        let (line, outbox) = stream();
        Self { keeper, line, outbox, lease, start }
    }

    /// Has it keep slots, too; the line of those who wait for one.
    fn slots(&self) -> Arc<crate::leases::Line> {
        let wanted = Wanted {
            amount: 2,
            sort: Sort::Slots { hold: Duration::from_secs(1), adaptive: None },
        };
        let slots = Quantity { kind: QuantityKind::Pool, name: "web".into(), incarnation: 0 };
        let line = Arc::new(crate::leases::Line::new(Arc::default()));
        line.set_length(1);
        let leases = &self.keeper.leases;
        leases.lock().cap((slots, wanted), &line, &[], leases);
        line
    }

    /// Looks `ms` after the start: what is sent, and when it looks again.
    fn look(&mut self, ms: u64) -> (Option<pb::LeaseReports>, u64) {
        let at = self.start + Duration::from_millis(ms);
        let again = self.keeper.look(at, Some(&self.line)) - self.start;
        (self.outbox.try_recv().ok(), u64::try_from(again.as_millis()).unwrap())
    }

    /// The control plane lends so much, and has understood this frame if it `renews`.
    fn hear(&mut self, id: u64, amount: u64, frame: u64, renews: bool) {
        let grant = pb::LeaseGrant {
            quantity: Some(convert::quantity_to_wire(&quantity())),
            holder: 1,
            term: 3,
            id,
            answers: id,
            lease_ms: 1000,
            amount,
            proxies: 1,
            ..pb::LeaseGrant::default()
        };
        let grants = if id > 0 { vec![grant] } else { Vec::new() };
        let message = pb::LeaseGrants { grants, frame, renews, term: 3, period_ms: 0 };
        self.keeper.hear(&message);
    }
}

#[tokio::test]
async fn what_has_not_changed_is_said_once_and_frames_keep_it_alive() {
    let mut talk = Talk::new();
    let (first, again) = talk.look(0);
    let first = first.unwrap();
    assert_eq!((first.frame, first.reports.len(), again), (1, 1, 100));
    assert_eq!(talk.look(50), (None, 100), "nothing is due");
    // Not understood: all is spelled out again.
    talk.hear(1, 50 * MICROS, 1, false);
    assert_eq!(talk.look(100).0.unwrap().reports.len(), 1);
    talk.hear(2, 50 * MICROS, 2, true);
    talk.look(200);
    let quiet = talk.look(300).0.unwrap();
    assert_eq!((quiet.frame, quiet.reports.len()), (4, 0));
    let held: u64 = talk.keeper.leases.lock().held.values().map(Held::rests_on).sum();
    assert_eq!(quiet.rests_on, held, "on what was said last");
    assert_ne!(quiet.rests_on, 0);
    talk.hear(0, 0, 4, false);
    assert_eq!(talk.look(400).0.unwrap().reports.len(), 1, "it knows nothing of that");
}

#[tokio::test]
async fn a_frame_that_was_understood_prolongs_the_lease_of_the_control_plane_that_lent() {
    let mut talk = Talk::new();
    talk.look(0);
    talk.hear(1, 50 * MICROS, 1, true);
    let rate = |talk: &Talk, ms| talk.lease.newest().rate(talk.start + Duration::from_millis(ms));
    assert_eq!((rate(&talk, 999), rate(&talk, 1000)), (50 * MICROS, 0));
    talk.look(100);
    talk.hear(0, 0, 2, false);
    assert_eq!(rate(&talk, 1050), 0);
    talk.hear(0, 0, 9, true);
    assert_eq!(rate(&talk, 1050), 0, "no such frame was sent");
    let other = pb::LeaseGrants { frame: 2, renews: true, term: 4, ..pb::LeaseGrants::default() };
    talk.keeper.hear(&other);
    assert_eq!(rate(&talk, 1050), 0, "another one lends nothing by that");
    talk.hear(0, 0, 2, true);
    assert_eq!((rate(&talk, 1099), rate(&talk, 1100)), (50 * MICROS, 0));
}

#[tokio::test]
async fn a_new_stream_begins_from_the_beginning_and_what_became_less_is_said_at_once() {
    let mut talk = Talk::new();
    talk.look(0);
    talk.hear(1, 50 * MICROS, 1, true);
    talk.look(100);
    talk.hear(2, 20 * MICROS, 2, true);
    let said = talk.look(101).0.unwrap();
    assert_eq!((said.frame, said.reports.len(), said.reports[0].holds), (0, 1, 20 * MICROS));
    let slow = pb::LeaseGrants { period_ms: 250, ..pb::LeaseGrants::default() };
    talk.keeper.hear(&slow);
    assert_eq!(talk.look(200), (None, 350));
    let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    drop(talk.keeper.open(channel));
    (talk.line, talk.outbox) = stream();
    let first = talk.look(201).0.unwrap();
    assert_eq!((first.frame, first.reports.len()), (1, 1));
    assert_eq!(talk.keeper.period, Duration::from_millis(250));
}

#[tokio::test]
async fn a_report_that_has_no_room_is_said_later() {
    let mut talk = Talk::new();
    let at = |talk: &Talk, ms| talk.start + Duration::from_millis(ms);
    for frame in 0..OUTBOX as u64 {
        talk.keeper.look(at(&talk, frame * 100), Some(&talk.line));
    }
    let before = talk.keeper.frames.next_at(PERIOD);
    talk.keeper.look(at(&talk, 400), Some(&talk.line));
    assert_eq!(talk.keeper.frames.next_at(PERIOD), before, "none was sent");
    while talk.outbox.try_recv().is_ok() {}
    assert_eq!(talk.look(401).0.unwrap().frame, 1 + OUTBOX as u64);
}

#[tokio::test]
async fn what_is_urgent_is_said_soon_and_not_more_often() {
    let mut talk = Talk::new();
    let line = talk.slots();
    assert_eq!(talk.look(0).0.unwrap().reports.len(), 2);
    let _waiter = line.join(talk.start).unwrap();
    assert_eq!(talk.look(5), (None, 10));
    let urgent = talk.look(10).0.unwrap();
    assert_eq!((urgent.frame, urgent.reports.len(), urgent.reports[0].waiting), (0, 1, 1));
    assert_eq!(talk.look(30).0, None);
}

#[tokio::test]
async fn who_leaves_says_so_once_nothing_is_in_use() {
    let mut talk = Talk::new();
    talk.look(0);
    talk.keeper.leases.is_leaving.store(true, Relaxed);
    assert!(talk.look(10).0.unwrap().leaves);
    let line = talk.slots();
    let waiter = line.join(talk.start).unwrap();
    let busy = talk.look(20).0;
    assert!(busy.is_none_or(|message| !message.leaves), "somebody waits");
    drop(waiter);
    assert!(talk.look(40).0.unwrap().leaves);
}

#[tokio::test]
async fn what_the_next_start_may_use_is_written_when_it_changes_and_not_all_the_time() {
    let mut talk = Talk::new();
    talk.look(0);
    talk.hear(1, 50 * MICROS, 1, true);
    let mut saved = talk.keeper.saved.subscribe();
    talk.look(999);
    assert!(!saved.has_changed().unwrap());
    talk.look(1000);
    assert!(saved.has_changed().unwrap() && !saved.borrow_and_update().is_empty());
    talk.look(2500);
    assert!(!saved.has_changed().unwrap(), "it is the same");
}
