//! One coarse timer wheel per worker, driven by a single sleep.
//!
//! Arming, re-arming and disarming are stores into a cell: nothing is moved. Each
//! timer waits in the bucket of the earliest deadline it ever had; when that bucket
//! comes round, it fires if it is due and otherwise moves on to the bucket of its
//! present deadline. A keep-alive connection that re-arms twice a request is thus
//! touched by the wheel ten times a second while it is busy, however many requests that are.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// What deadlines are rounded up to.
const TICK: Duration = Duration::from_millis(TICK_MS);
const TICK_MS: u64 = 16;
/// The wheel's circumference; later deadlines wait in its last bucket.
const BUCKETS: u64 = 1024;
/// No deadline.
const NEVER: u64 = u64::MAX;

/// All timers of one worker.
#[derive(Debug)]
pub(crate) struct Wheel {
    origin: Instant,
    buckets: RefCell<Vec<Vec<Rc<Entry>>>>,
    /// The tick that was asked for last, and its first and last moment.
    asked: Cell<Asked>,
    /// All buckets up to this tick have been emptied.
    swept: Cell<u64>,
    /// The tick for which the driver sleeps.
    sleeping_until: Cell<u64>,
    driver: RefCell<Option<Waker>>,
}

/// A tick as moments. Times of one tick are asked for many times in a row, and comparing them
/// costs a fraction of their difference.
#[derive(Clone, Copy, Debug)]
struct Asked {
    tick: u64,
    from: Instant,
    /// The first moment after it.
    until: Instant,
}

#[derive(Debug)]
struct Entry {
    deadline: Cell<u64>,
    /// The tick of the bucket in which the wheel looks at it next.
    queued: Cell<u64>,
    fired: Cell<bool>,
    /// Since which tick it has been that of a client that asks for nothing, or not to the end.
    idle_since: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

/// One deadline that can be moved at will. It fires at most once per arming.
#[derive(Debug)]
pub(crate) struct Timer {
    entry: Rc<Entry>,
}

impl Wheel {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            asked: Cell::new(Asked { tick: 0, from: now, until: now }),
            buckets: RefCell::new((0..BUCKETS).map(|_| Vec::new()).collect()),
            swept: Cell::new(0),
            sleeping_until: Cell::new(NEVER),
            driver: RefCell::new(None),
        }
    }

    /// A timer that is not armed.
    pub(crate) fn timer() -> Timer {
        Timer {
            entry: Rc::new(Entry {
                deadline: Cell::new(NEVER),
                queued: Cell::new(NEVER),
                fired: Cell::new(false),
                idle_since: Cell::new(NEVER),
                waker: RefCell::new(None),
            }),
        }
    }

    /// Lets `timer` fire once `after` has passed since `now`, and not before.
    pub(crate) fn arm(&self, timer: &Timer, now: Instant, after: Duration) {
        let entry = &timer.entry;
        // One more for each part that was rounded down.
        let deadline = self.tick_before(now) + to_ticks(after) + 2;
        entry.deadline.set(deadline);
        entry.fired.set(false);
        if entry.queued.get() > deadline {
            self.queue(entry, deadline);
        }
    }

    fn queue(&self, entry: &Rc<Entry>, deadline: u64) {
        let swept = self.swept.get();
        let tick = deadline.clamp(swept + 1, swept + BUCKETS - 1);
        entry.queued.set(tick);
        self.buckets.borrow_mut()[bucket(tick)].push(Rc::clone(entry));
        if tick < self.sleeping_until.get()
            && let Some(driver) = self.driver.borrow_mut().take()
        {
            driver.wake();
        }
    }

    /// Returns after this long, for whoever has the timer to himself.
    pub(crate) async fn pause(&self, timer: &Timer, after: Duration) {
        self.arm(timer, tokio::time::Instant::now().into_std(), after);
        poll_fn(|context| timer.poll(context)).await;
    }

    /// Wakes every task that waits for a timer, due or not: they look at the
    /// worker's state again.
    pub(crate) fn wake_all(&self) {
        let buckets = self.buckets.borrow();
        for entry in buckets.iter().flatten() {
            if let Some(waker) = &*entry.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    /// Says that since then the timer has been that of a client that asks for nothing.
    pub(crate) fn mark_idle(&self, timer: &Timer, since: Instant) {
        timer.entry.idle_since.set(self.tick_before(since));
    }

    /// The same of a client that is so only after this long.
    pub(crate) fn mark_idle_after(&self, timer: &Timer, since: Instant, after: Duration) {
        timer.entry.idle_since.set(self.tick_before(since) + to_ticks(after));
    }

    /// Fires so many of the timers that have been idle since before `until`: those first that
    /// have been idle for longest. How many there were.
    pub(crate) fn fire_idle(&self, until: Instant, count: usize) -> usize {
        let until = self.tick_before(until);
        let buckets = self.buckets.borrow();
        let mut idle: Vec<&Rc<Entry>> =
            buckets.iter().flatten().filter(|entry| entry.idle_since.get() < until).collect();
        idle.sort_by_key(|entry| entry.idle_since.get());
        let mut fired = 0;
        for entry in idle {
            if fired == count {
                break;
            }
            // One that was armed anew may stand in two buckets.
            if entry.idle_since.replace(NEVER) == NEVER {
                continue;
            }
            fired += 1;
            entry.fired.set(true);
            entry.deadline.set(NEVER);
            if let Some(waker) = entry.waker.borrow_mut().take() {
                waker.wake();
            }
        }
        fired
    }

    /// Sleeps from bucket to bucket, for ever.
    pub(crate) async fn drive(&self) {
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            self.sweep(tokio::time::Instant::now().into_std());
            let next = self.next_occupied();
            self.sleeping_until.set(next);
            if next != NEVER {
                sleep.as_mut().reset((self.origin + after(next)).into());
            }
            let mut first = true;
            poll_fn(|context| {
                if next != NEVER && sleep.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                // Woken by `queue`, which took the waker.
                if !first && self.driver.borrow().is_none() {
                    return Poll::Ready(());
                }
                first = false;
                *self.driver.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }

    /// Fires what is due in all buckets up to now.
    fn sweep(&self, now: Instant) {
        let current = self.tick_before(now);
        while self.swept.get() < current {
            let tick = self.swept.get() + 1;
            self.swept.set(tick);
            let due = std::mem::take(&mut self.buckets.borrow_mut()[bucket(tick)]);
            let mut emptied = due;
            for entry in emptied.drain(..) {
                // A duplicate from an earlier re-arming, or dropped.
                if entry.queued.get() != tick || Rc::strong_count(&entry) == 1 {
                    continue;
                }
                entry.queued.set(NEVER);
                let deadline = entry.deadline.get();
                if deadline <= tick {
                    entry.fired.set(true);
                    entry.deadline.set(NEVER);
                    if let Some(waker) = entry.waker.borrow_mut().take() {
                        waker.wake();
                    }
                } else if deadline != NEVER {
                    self.queue(&entry, deadline);
                }
            }
            // Keep the allocation, unless something was queued here meanwhile.
            let slot = &mut self.buckets.borrow_mut()[bucket(tick)];
            if slot.is_empty() && emptied.capacity() <= 1024 {
                *slot = emptied;
            }
        }
    }

    fn next_occupied(&self) -> u64 {
        let swept = self.swept.get();
        let buckets = self.buckets.borrow();
        (swept + 1..swept + BUCKETS)
            .find(|tick| !buckets[bucket(*tick)].is_empty())
            .unwrap_or(NEVER)
    }

    fn tick_before(&self, at: Instant) -> u64 {
        let asked = self.asked.get();
        if asked.from <= at && at < asked.until {
            return asked.tick;
        }
        let tick = to_ticks(at.saturating_duration_since(self.origin));
        let from = self.origin + after(tick);
        self.asked.set(Asked { tick, from, until: from + TICK });
        tick
    }
}

/// Whole ticks, without a division of 128 bits: this is done several times a request.
fn to_ticks(duration: Duration) -> u64 {
    let ms = duration.as_secs().saturating_mul(1000) + u64::from(duration.subsec_millis());
    ms / TICK_MS
}

impl Drop for Timer {
    /// The wheel lets go of the entry only when its bucket comes round. A waker keeps the memory
    /// of a whole task until then, and nobody waits any more.
    fn drop(&mut self) {
        drop(self.entry.waker.take());
    }
}

impl Timer {
    /// Takes the deadline back.
    pub(crate) fn disarm(&self) {
        self.entry.deadline.set(NEVER);
        self.entry.fired.set(false);
    }

    /// Whether it is still that of a client that asks for nothing. One that was marked so and is no
    /// more has been fired to make room.
    pub(crate) fn is_idle(&self) -> bool {
        self.entry.idle_since.get() != NEVER
    }

    /// Says that it is not, or no more, that of a client that asks for nothing.
    pub(crate) fn mark_busy(&self) {
        self.entry.idle_since.set(NEVER);
    }

    /// Ready once the deadline has passed; else the task is woken when it has.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.entry.fired.get() {
            return Poll::Ready(());
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

fn bucket(tick: u64) -> usize {
    usize::try_from(tick % BUCKETS).expect("a bucket number is small")
}

/// How long after its origin a wheel comes to a tick.
fn after(tick: u64) -> Duration {
    Duration::from_millis(tick.saturating_mul(TICK_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    async fn fired(timer: &Timer) {
        poll_fn(|context| timer.poll(context)).await;
    }

    /// Runs a test beside the driver, in virtual time.
    async fn beside_driver<F: Future<Output = ()>>(test: impl FnOnce(Rc<Wheel>) -> F) {
        let wheel = Rc::new(Wheel::new(now()));
        let driver = Rc::clone(&wheel);
        tokio::select! {
            () = driver.drive() => {}
            () = test(wheel) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_after_its_deadline_and_not_before() {
        beside_driver(|wheel| async move {
            for after in [1, 20, 500, 16_000, 75_000] {
                let after = Duration::from_millis(after);
                let (timer, start) = (Wheel::timer(), now());
                wheel.arm(&timer, start, after);
                fired(&timer).await;
                let late = (now() - start).checked_sub(after).expect("never early");
                assert!(late <= 3 * TICK, "{late:?} late");
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_can_be_moved_either_way() {
        beside_driver(|wheel| async move {
            let (timer, start) = (Wheel::timer(), now());
            wheel.arm(&timer, start, Duration::from_secs(60));
            wheel.arm(&timer, start, Duration::from_secs(1));
            fired(&timer).await;
            assert!(now() - start < Duration::from_secs(2));
            wheel.arm(&timer, now(), Duration::from_secs(1));
            wheel.arm(&timer, now(), Duration::from_secs(30));
            let start = now();
            fired(&timer).await;
            assert!(now() - start >= Duration::from_secs(30));
        })
        .await;
    }

    #[test]
    fn of_idle_timers_those_fire_first_that_have_waited_for_longest() {
        let (start, ms) = (now(), Duration::from_millis);
        let wheel = Wheel::new(start);
        let timers: Vec<Timer> = (0..6).map(|_| Wheel::timer()).collect();
        for (timer, since) in timers.iter().zip([900, 300, 500, 700, 100, 5000]) {
            wheel.arm(timer, start, ms(30_000 - since));
            wheel.mark_idle(timer, start + ms(since));
        }
        timers[4].mark_busy();
        // This one stands in two buckets.
        wheel.arm(&timers[0], start, ms(400));
        let fired = || timers.iter().map(|timer| timer.entry.fired.get()).collect::<Vec<_>>();
        assert_eq!(wheel.fire_idle(start + ms(2000), 2), 2);
        assert_eq!(fired(), [false, true, true, false, false, false]);
        assert_eq!(wheel.fire_idle(start + ms(2000), usize::MAX), 2);
        assert_eq!(fired(), [true, true, true, true, false, false]);
        assert_eq!(wheel.fire_idle(start + ms(2000), usize::MAX), 0);
    }

    #[test]
    fn what_waits_for_a_timer_that_is_gone_is_let_go_of() {
        struct Task;
        impl std::task::Wake for Task {
            fn wake(self: std::sync::Arc<Self>) {}
        }
        let (wheel, timer) = (Wheel::new(now()), Wheel::timer());
        let task = std::sync::Arc::new(Task);
        let waker = std::sync::Arc::clone(&task).into();
        wheel.arm(&timer, now(), Duration::from_secs(10));
        assert!(timer.poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert_eq!(std::sync::Arc::strong_count(&task), 2);
        drop(timer);
        assert_eq!(std::sync::Arc::strong_count(&task), 1);
    }

    #[test]
    fn a_wheel_turns_for_longer_than_anybody_waits() {
        let start = now();
        let wheel = Wheel::new(start);
        let years = Duration::from_secs(50 * 365 * 24 * 3600);
        let tick = wheel.tick_before(start + years);
        assert!(start + after(tick) <= start + years && start + years < start + after(tick + 1));
        assert_eq!(wheel.asked.get().tick, tick);
        assert!(wheel.asked.get().from <= start + years && start + years < wheel.asked.get().until);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disarmed_timer_stays_silent() {
        beside_driver(|wheel| async move {
            let timer = Wheel::timer();
            wheel.arm(&timer, now(), Duration::from_secs(1));
            timer.disarm();
            let other = Wheel::timer();
            wheel.arm(&other, now(), Duration::from_secs(5));
            tokio::select! {
                biased;
                () = fired(&timer) => panic!("disarmed"),
                () = fired(&other) => {}
            }
        })
        .await;
    }
}
