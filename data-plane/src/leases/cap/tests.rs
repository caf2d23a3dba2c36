use std::task::{Context, Waker};

use super::*;

const LONG: Duration = Duration::from_secs(5);

#[test]
fn a_request_needs_the_slots_of_its_backend_and_of_its_pool() {
    let start = now();
    let quantity = || Quantity { kind: QuantityKind::Pool, name: "web".into(), incarnation: 0 };
    let cap = |slots| {
        let cap = Arc::new(Cap::new(quantity(), Arc::default(), 1, start));
        cap.slots().allow(slots, start + LONG);
        cap
    };
    let (of_pool, full, free) = (cap(1), cap(0), cap(2));
    let line = Arc::new(Line::new(Arc::default()));
    line.set_length(9);
    let backends = Box::new([Some(Arc::clone(&full)), Some(Arc::clone(&free)), None]);
    let caps = PoolCaps::new(Arc::clone(&line), Some(Arc::clone(&of_pool)), backends, false);
    let caps = Arc::new(caps);
    assert_eq!(caps.full(start).collect::<Vec<_>>(), [0]);
    assert!(caps.take(0, start).is_none() && of_pool.taken() == 0);
    let permit = caps.take(1, start).unwrap();
    assert_eq!((of_pool.taken(), free.taken(), caps.has_room(start)), (1, 1, false));
    let waiter = line.join(start).unwrap();
    waiter.pass_on();
    assert!(caps.take(1, start).is_none() && caps.take(2, start).is_none());
    assert_eq!((of_pool.taken(), free.taken()), (1, 1), "what was taken first is given back");
    let context = Context::from_waker(Waker::noop());
    assert!(waiter.poll_turn(&context).is_ready(), "and who saw it taken looks again");
    waiter.pass_on();
    assert!(!permit.is_overdue(Duration::ZERO));
    of_pool.set_overdue(1);
    assert!(!permit.is_overdue(2 * LONG), "it began later than what is to end");
    assert!(permit.is_overdue(Duration::ZERO) && !permit.is_overdue(Duration::ZERO), "only one");
    of_pool.slots().allow(0, start + LONG);
    assert!(!of_pool.was_returned());
    drop(permit);
    assert!(of_pool.was_returned() && !of_pool.was_returned() && !free.was_returned());
    assert!(waiter.poll_turn(&context).is_ready());
}

#[test]
fn of_two_permits_one_gives_back_one_slot_and_errors_teach_nothing_of_how_long_answers_take() {
    let start = now();
    let quantity = Quantity { kind: QuantityKind::Pool, name: "web".into(), incarnation: 0 };
    let cap = Arc::new(Cap::new(quantity, Arc::default(), 1, start));
    cap.slots().allow(2, start + LONG);
    let line = Arc::new(Line::new(Arc::default()));
    let caps = PoolCaps::new(line, Some(Arc::clone(&cap)), Box::new([]), true);
    let caps = Arc::new(caps);
    let (mut failed, mut answered) = (caps.take(0, start).unwrap(), caps.take(0, start).unwrap());
    let answers = || cap.answers.as_ref().unwrap().sums().answers;
    failed.answered(503, 0);
    assert_eq!(answers(), 0);
    answered.answered(200, 0);
    assert_eq!(answers(), 1);
    drop(failed);
    assert_eq!(cap.taken(), 1);
}
