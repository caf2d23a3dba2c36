//! One start of a proxy: its clock, its share, its traffic.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use fastrand::Rng;
use lb_core::{
    lease::{Grant, Holder, RateShare, Report, Slots, Term, Terms},
    limit::{Bucket, MICROS, Queue},
};

use crate::plan::{Faults, Plan};

/// A monotonic clock: it starts anywhere and runs at its own speed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// Parts per million that it is too fast, [`DRIFT_PPM`] either way: sixty
    /// times what real ones have, so that what relies on them shows.
    fast_ppm: i64,
}

pub(crate) const DRIFT_PPM: i64 = 30_000;

impl Clock {
    pub(crate) fn drawn(plan: &Plan, epoch: Instant, rng: &mut Rng) -> Self {
        let origin = epoch + Duration::from_secs(rng.u64(..1_000_000));
        let fast_ppm = match plan.faults {
            Faults::None => 0,
            Faults::Outages | Faults::All if rng.bool() => DRIFT_PPM,
            Faults::Outages | Faults::All => -DRIFT_PPM,
        };
        Self { origin, fast_ppm }
    }

    /// What it shows at a true time in microseconds.
    pub(crate) fn at(&self, now: u64) -> Instant {
        let fast = i64::try_from(now).expect("a short run") * self.fast_ppm / 1_000_000;
        self.origin + Duration::from_micros(now.saturating_add_signed(fast))
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    clock: Clock,
    pub(crate) is_up: bool,
    /// No message passes until then.
    pub(crate) cut_until: u64,
    pub(crate) share: Share,
    /// When each frame was sent.
    frames: Vec<u64>,
    /// The next one says all.
    spells_out: bool,
    /// Requests per second.
    pub(crate) demand: f64,
    due: f64,
    /// When requests in slots end. After a kill, the backend is still at them.
    pub(crate) running: BinaryHeap<Reverse<u64>>,
    pub(crate) asked: u64,
    pub(crate) admitted: u64,
    /// Slots in use, times microseconds.
    pub(crate) held: u64,
    /// The largest burst that it ever had.
    pub(crate) burst: u32,
    pub(crate) served_at: u64,
    pub(crate) longest_wait: u64,
    /// So many of its next requests hold their slots for so many milliseconds.
    pub(crate) stays: (u64, u64),
    /// It may exceed what the granter knows of by so much, until then.
    pub(crate) excess: (u64, u64),
}

#[derive(Debug)]
pub(crate) enum Share {
    Rate { share: RateShare, bucket: Bucket, asked: u64 },
    Slots { slots: Slots, queue: Queue },
}

impl Node {
    pub(crate) fn start(plan: &Plan, epoch: Instant, now: u64, demand: f64, rng: &mut Rng) -> Self {
        let clock = Clock::drawn(plan, epoch, rng);
        let at = clock.at(now);
        let holder = Holder::new(plan.terms, plan.on_loss, 0, 1, at);
        let share = if plan.is_rate {
            let share = RateShare::new(holder, plan.burst, at);
            Share::Rate { share, bucket: Bucket::new(), asked: 0 }
        } else {
            Share::Slots { slots: Slots::new(holder, at), queue: Queue::default() }
        };
        Self {
            clock,
            is_up: true,
            cut_until: 0,
            share,
            frames: Vec::new(),
            spells_out: true,
            demand,
            due: rng.f64(),
            running: BinaryHeap::new(),
            asked: 0,
            admitted: 0,
            held: 0,
            burst: 0,
            served_at: now,
            longest_wait: 0,
            stays: (0, 0),
            excess: (0, 0),
        }
    }

    pub(crate) fn holder(&self) -> &Holder {
        match &self.share {
            Share::Rate { share, .. } => share.holder(),
            Share::Slots { slots, .. } => slots.holder(),
        }
    }

    /// What it has beside its share, or is about to have if no grant comes.
    pub(crate) fn beyond_its_share(&self, now: u64) -> u64 {
        let (holder, soon) = (self.holder(), self.clock.at(now) + Terms::LEASE);
        holder.usable(soon) - holder.stages().at(soon)
    }

    /// What it says; nothing if it is what it said last, and it need not say that again.
    pub(crate) fn news(&mut self, now: u64) -> Option<Report> {
        let at = self.clock.at(now);
        if std::mem::take(&mut self.spells_out) {
            return Some(self.report(now));
        }
        match &mut self.share {
            Share::Rate { share, asked, .. } => share.news(std::mem::take(asked), at),
            Share::Slots { slots, .. } => slots.news(at),
        }
    }

    /// A report is wanted, whatever it says.
    pub(crate) fn spell_out(&mut self) {
        self.spells_out = true;
    }

    /// Sends a frame; its number.
    pub(crate) fn frame(&mut self, now: u64) -> usize {
        self.frames.push(now);
        self.frames.len()
    }

    /// This frame was heard, and taken for what it is if `renews`.
    pub(crate) fn answered(&mut self, term: Term, frame: usize, renews: bool, now: u64) {
        if !renews {
            self.spells_out = true;
            return;
        }
        let (sent_at, at) = (self.clock.at(self.frames[frame - 1]), self.clock.at(now));
        match &mut self.share {
            Share::Rate { share, .. } => share.renew(term, sent_at, at),
            Share::Slots { slots, .. } => slots.renew(term, sent_at, at),
        }
    }

    pub(crate) fn report(&mut self, now: u64) -> Report {
        let at = self.clock.at(now);
        match &mut self.share {
            Share::Rate { share, asked, .. } => share.report(std::mem::take(asked), at),
            Share::Slots { slots, .. } => slots.report(at),
        }
    }

    /// Whether the grant was applied, and whether to report at once.
    pub(crate) fn apply(&mut self, grant: &Grant, now: u64) -> (bool, bool) {
        let at = self.clock.at(now);
        let applied = match &mut self.share {
            Share::Rate { share, .. } => share.apply(grant, at),
            Share::Slots { slots, .. } => slots.apply(grant, at),
        };
        (applied.is_ok(), applied.is_ok_and(|applied| applied.report_now))
    }

    /// Lets requests come and go. Whether to report at once.
    pub(crate) fn traffic(&mut self, plan: &Plan, now: u64, step: u64, rng: &mut Rng) -> bool {
        let at = self.clock.at(now);
        let mean = self.demand * step as f64 / 1e6;
        self.due += match plan.at_random {
            true => poisson(mean, rng),
            // Uneven, with the right mean.
            false => mean * rng.f64() * 2.0,
        };
        let mut urgent = false;
        match &mut self.share {
            Share::Rate { share, bucket, asked } => {
                let pace = share.pace();
                self.burst = self.burst.max(pace.burst());
                while self.due >= 1.0 {
                    self.due -= 1.0;
                    *asked += 1;
                    self.asked += 1;
                    self.admitted += u64::from(bucket.take(&pace, at).is_admitted());
                }
            }
            Share::Slots { slots, queue } => {
                while self.running.peek().is_some_and(|Reverse(ends)| *ends <= now) {
                    self.running.pop();
                    urgent |= slots.give_back(at);
                }
                while queue.expire(at).is_some() {}
                while self.due >= 1.0 {
                    self.due -= 1.0;
                    self.asked += 1;
                    // Who finds it full goes away.
                    queue.join(at).ok();
                }
                while !queue.is_empty() && slots.take(at) {
                    queue.next(at).expect("nobody who waits has waited too long");
                    let service = match self.stays {
                        (0, _) => rng.u64(plan.service_ms.0..=plan.service_ms.1),
                        (_, long) => long,
                    };
                    self.stays.0 = self.stays.0.saturating_sub(1);
                    self.running.push(Reverse(now + crate::ms(service)));
                    self.admitted += 1;
                    self.longest_wait = self.longest_wait.max(now - self.served_at);
                    self.served_at = now;
                }
                self.held += slots.in_use() * step;
                urgent |= slots.set_waiting(queue.len() as u64, at);
            }
        }
        urgent
    }

    /// What it uses or may use at this moment.
    pub(crate) fn usable(&self, now: u64) -> u64 {
        if !self.is_up {
            return 0;
        }
        self.in_units(self.holder().usable(self.clock.at(now)))
    }

    /// An amount as thousandths of a token per second, or as slots.
    pub(crate) fn in_units(&self, amount: u64) -> u64 {
        if matches!(self.share, Share::Rate { .. }) { amount / (MICROS / 1000) } else { amount }
    }

    pub(crate) fn is_leased(&self, now: u64) -> bool {
        self.holder().is_leased(self.clock.at(now))
    }
}

/// How many come when each comes at random (Knuth's method, for small means).
fn poisson(mean: f64, rng: &mut Rng) -> f64 {
    let (floor, mut product, mut count) = ((-mean).exp(), rng.f64(), 0.0);
    while product > floor {
        product *= rng.f64();
        count += 1.0;
    }
    count
}
