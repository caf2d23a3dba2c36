//! A control plane, some proxies, and a bad network between them, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Instant,
};

use fastrand::Rng;
use lb_core::{
    lease::{Census, Former, Grant, Granter, Heard, Report as Message, Term},
    limit::MICROS,
};

use crate::{
    bound::Bound,
    calm, ms,
    node::{Clock, Node},
    plan::{Faults, Plan, Report},
};

pub(crate) struct World {
    pub(crate) plan: Plan,
    rng: Rng,
    epoch: Instant,
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    quantity: u64,
    term: u64,
    granter: Option<(Clock, Granter<usize>)>,
    /// Who may have something of a granter; on disk.
    noted: BTreeSet<usize>,
    /// Who may have something of a granter before this one.
    former: (BTreeSet<usize>, Census<usize>),
    /// The last frame that was heard of each, and whether it was taken for what it is.
    frames: BTreeMap<usize, Frame>,
    grant_is_due: bool,
    /// By start of a process.
    pub(crate) nodes: Vec<Node>,
    bound: Bound,
    pub(crate) report: Report,
    pub(crate) trace: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Traffic,
    Fault,
    Tick,
    Urgent,
    Start,
    Report(usize),
    Up(usize, Message),
    /// With what there is to spell out, the frame's number, and the report that it rests on.
    UpFrame(usize, Option<Message>, usize, u64),
    /// With the term of the control plane, and the frame that it has heard last.
    Down(usize, Option<Grant>, Term, Option<Frame>),
    /// A report is wanted.
    Ask(usize),
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    number: usize,
    renews: bool,
    is_answered: bool,
}

/// Between two looks at all proxies.
const STEP: u64 = ms(10);

impl World {
    pub(crate) fn new(plan: Plan, traced: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one epoch of a simulated clock")]
        let epoch = Instant::now();
        let mut world = Self {
            rng: Rng::with_seed(plan.seed),
            epoch,
            now: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            quantity: plan.quantity,
            term: 0,
            granter: None,
            noted: BTreeSet::new(),
            former: (BTreeSet::new(), Census::new([])),
            frames: BTreeMap::new(),
            grant_is_due: false,
            nodes: Vec::new(),
            bound: Bound::new(&plan),
            report: Report { runs: 1, ..Report::default() },
            trace: traced.then(Vec::new),
            plan,
        };
        world.start_control_plane(Former::None);
        for _ in 0..plan.proxies {
            world.join();
        }
        world.at(0, Event::Traffic);
        world.at(0, Event::Tick);
        if plan.faults != Faults::None {
            world.after(100..800, Event::Fault);
        }
        world
    }

    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.run_until(ms(self.plan.end_ms))?;
        if self.plan.faults != Faults::None {
            calm::check(self.quantity, self.plan.is_rate, &self.nodes, self.now)
        } else {
            Ok(())
        }
    }

    pub(crate) fn run_until(&mut self, end: u64) -> Result<(), String> {
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, index))) = self.queue.pop() else { break };
            self.now = at;
            self.report.steps += 1;
            let Some(event) = self.events[index].take() else { continue };
            if let Some(trace) = &mut self.trace {
                trace.push(format!("{at} {event:?}"));
            }
            let step = if matches!(event, Event::Traffic) { STEP } else { 0 };
            self.step(event);
            self.bound
                .check(&self.plan, &mut self.nodes, at, step)
                .map_err(|why| format!("at {at}: {why}"))?;
        }
        Ok(())
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Traffic => self.traffic(),
            Event::Fault if self.now >= ms(self.plan.calm_ms) => self.calm_down(),
            Event::Fault => {
                self.fault();
                self.after(50..600, Event::Fault);
            }
            Event::Tick => {
                self.grant();
                self.answer_frames();
                self.note();
                self.at(self.now + ms(100), Event::Tick);
            }
            Event::Urgent => {
                self.grant_is_due = false;
                self.grant();
            }
            Event::Start => self.start_control_plane(Former::MayHaveLent),
            Event::Report(node) => {
                if self.nodes[node].is_up {
                    self.send_frame(node);
                    self.at(self.now + ms(self.plan.report_every_ms), Event::Report(node));
                }
            }
            Event::Up(node, message) => self.hear(node, &message),
            Event::UpFrame(node, message, frame, rests_on) => {
                if let Some(message) = message {
                    self.hear(node, &message);
                }
                self.hear_frame(node, frame, rests_on);
            }
            Event::Down(node, grant, term, frame) => self.deliver(node, grant, term, frame),
            Event::Ask(node) => self.nodes[node].spell_out(),
        }
    }

    fn traffic(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            if !node.is_up {
                while node.running.peek().is_some_and(|Reverse(ends)| *ends <= self.now) {
                    node.running.pop();
                }
                continue;
            }
            if !node.is_leased(self.now) {
                self.report.unleased_ms += 10;
            }
            let (asked, admitted) = (node.asked, node.admitted);
            let urgent = node.traffic(&self.plan, self.now, STEP, &mut self.rng);
            self.report.asked += node.asked - asked;
            self.report.admitted += node.admitted - admitted;
            if urgent {
                self.send_report(index);
            }
        }
        self.at(self.now + STEP, Event::Traffic);
    }

    fn send_report(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let message = node.report(self.now);
        let is_cut = node.cut_until > self.now;
        self.send(is_cut, Event::Up(index, message));
    }

    fn send_frame(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let news = node.news(self.now);
        self.report.repeated += u64::from(news.is_none());
        let (frame, rests_on) = (node.frame(self.now), node.holder().last_report());
        let is_cut = node.cut_until > self.now;
        self.send(is_cut, Event::UpFrame(index, news, frame, rests_on));
    }

    fn hear_frame(&mut self, node: usize, number: usize, rests_on: u64) {
        let Some((clock, granter)) = &mut self.granter else { return };
        if self.frames.get(&node).is_some_and(|known| number <= known.number) {
            return;
        }
        let renews = granter.last_heard(node..=node).is_some_and(|(_, seq)| seq == rests_on);
        if renews {
            granter.hear_again(&node, clock.at(self.now));
        }
        self.report.unmatched += u64::from(!renews);
        self.frames.insert(node, Frame { number, renews, is_answered: false });
    }

    /// Those that are answered by nothing else.
    fn answer_frames(&mut self) {
        if self.granter.is_none() {
            return;
        }
        let owed: Vec<_> = self.frames.iter().filter(|(_, frame)| !frame.is_answered).collect();
        let owed: Vec<_> = owed.into_iter().map(|(node, frame)| (*node, *frame)).collect();
        for (node, frame) in owed {
            self.send_down(node, None, Some(frame));
        }
    }

    fn send_down(&mut self, node: usize, grant: Option<Grant>, frame: Option<Frame>) {
        if let Some(frame) = self.frames.get_mut(&node) {
            frame.is_answered = true;
        }
        let is_cut = self.nodes[node].cut_until > self.now;
        self.send(is_cut, Event::Down(node, grant, Term(self.term), frame));
    }

    fn hear(&mut self, node: usize, message: &Message) {
        let Some((clock, granter)) = &mut self.granter else { return };
        self.noted.insert(node);
        let now = clock.at(self.now);
        let heard = granter.hear(&node, message, now);
        match heard {
            Heard::Noted | Heard::Urgent => {}
            Heard::Stale => {
                self.report.stale_reports += 1;
                return;
            }
            Heard::Outranked(_) => unreachable!("each control plane has a larger term"),
        }
        let is_complete = self.former.1.hear(&node, message, Term(self.term));
        if is_complete {
            self.report.accounted += u64::from(granter.carries(now));
            granter.former_is_accounted_for(now);
        }
        if (heard == Heard::Urgent || is_complete) && !self.grant_is_due {
            self.grant_is_due = true;
            self.after(1..3, Event::Urgent);
        }
    }

    /// Forgets on disk those who can have nothing any more.
    fn note(&mut self) {
        let Some((clock, granter)) = &self.granter else { return };
        let known: BTreeSet<usize> = granter.holders().map(|(node, ..)| *node).collect();
        let carries = granter.carries(clock.at(self.now));
        let former = &self.former.0;
        self.noted.retain(|node| known.contains(node) || carries && former.contains(node));
    }

    fn grant(&mut self) {
        let Some((clock, granter)) = &mut self.granter else { return };
        let mut grants = Vec::new();
        for (node, grant) in granter.grant(clock.at(self.now)) {
            self.report.carried += u64::from(grant.carried);
            grants.push((node, grant));
        }
        let asked: Vec<usize> = granter.asked().copied().collect();
        for (node, grant) in grants {
            self.send_down(node, Some(grant), self.frames.get(&node).copied());
        }
        for node in asked {
            self.report.asked_for += 1;
            let is_cut = self.nodes[node].cut_until > self.now;
            self.send(is_cut, Event::Ask(node));
        }
    }

    fn deliver(&mut self, index: usize, grant: Option<Grant>, term: Term, frame: Option<Frame>) {
        let node = &mut self.nodes[index];
        if !node.is_up {
            return;
        }
        if let Some(Frame { number, renews, .. }) = frame {
            node.answered(term, number, renews, self.now);
        }
        let Some(grant) = &grant else { return };
        let (applied, report_now) = node.apply(grant, self.now);
        self.report.applied += u64::from(applied);
        self.report.refused_grants += u64::from(!applied);
        if report_now {
            self.send_report(index);
        }
    }

    fn send(&mut self, is_cut: bool, event: Event) {
        let is_bad = self.plan.faults == Faults::All && self.now < ms(self.plan.calm_ms);
        if is_cut || is_bad && self.rng.u8(..10) == 0 {
            self.report.lost += 1;
            return;
        }
        if is_bad && self.rng.u8(..20) == 0 {
            self.report.doubled += 1;
            self.after(1..1500, event);
        }
        if is_bad && self.rng.u8(..20) == 0 {
            self.report.late += 1;
            self.after(30..1500, event);
        } else {
            let slow = if self.rng.bool() { 3 } else { 30 };
            self.after(0..slow, event);
        }
    }

    fn fault(&mut self) {
        let all = self.plan.faults == Faults::All;
        let node = self.rng.usize(..self.nodes.len());
        match self.rng.u8(..12) {
            0..3 if self.granter.is_some() => {
                self.report.outages += 1;
                if let Some((_, granter)) = self.granter.take() {
                    let heard: BTreeSet<usize> =
                        granter.holders().map(|(node, ..)| *node).collect();
                    self.bound.control_plane_stops(&self.plan, &heard, &mut self.nodes, self.now);
                }
                let long = if self.rng.bool() { 1..300 } else { 300..4000 };
                self.after(long, Event::Start);
            }
            3..5 if self.nodes.iter().filter(|node| node.is_up).count() < 8 => {
                self.report.joins += 1;
                self.join();
            }
            5..7 if all => {
                self.report.kills += 1;
                self.nodes[node].is_up = false;
            }
            7..9 if all => {
                self.report.partitions += 1;
                self.nodes[node].cut_until = self.now + ms(self.rng.u64(100..4000));
            }
            9 if self.granter.is_some() => {
                self.report.quantities += 1;
                self.quantity = self.rng.u64(1..=2 * self.plan.quantity);
                let quantity = self.in_units();
                if let Some((_, granter)) = &mut self.granter {
                    granter.set_quantity(quantity);
                }
                self.bound.quantity_changes(&self.plan, self.quantity, self.now);
            }
            _ => self.nodes[node].demand = self.drawn_demand(),
        }
    }

    /// From here on everybody wants something, and nobody changes its mind.
    fn calm_down(&mut self) {
        if !self.nodes.iter().any(|node| node.is_up) {
            self.join();
        }
        for node in &mut self.nodes {
            node.cut_until = 0;
        }
    }

    fn join(&mut self) {
        let index = self.nodes.len();
        let demand = match self.plan.demands {
            [] => self.drawn_demand(),
            demands => demands[index % demands.len()],
        };
        self.nodes.push(Node::start(&self.plan, self.epoch, self.now, demand, &mut self.rng));
        self.after(0..self.plan.report_every_ms, Event::Report(index));
    }

    /// Skewed: some want nothing, some more than there is.
    fn drawn_demand(&mut self) -> f64 {
        let even = self.plan.quantity as f64;
        let skew = [0.0, 0.1, 0.5, 1.0, 2.0][self.rng.usize(..5)];
        if self.plan.is_rate { even * skew } else { (even * skew * 4.0).min(60.0) }
    }

    fn start_control_plane(&mut self, former: Former) {
        self.term += 1;
        let clock = Clock::drawn(&self.plan, self.epoch, &mut self.rng);
        let (term, quantity) = (Term(self.term), self.in_units());
        let granter = Granter::new(term, quantity, self.plan.terms, former, clock.at(self.now));
        self.granter = Some((clock, granter));
        self.frames.clear();
        self.former = (self.noted.clone(), Census::new(self.noted.iter().copied()));
        self.bound.control_plane_starts(&self.plan, &mut self.nodes, self.now);
    }

    fn in_units(&self) -> u64 {
        if self.plan.is_rate { self.quantity * MICROS } else { self.quantity }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.events.push(Some(event));
        let index = self.events.len() - 1;
        self.queue.push(Reverse((at, index as u64, index)));
    }

    fn after(&mut self, range_ms: std::ops::Range<u64>, event: Event) {
        let wait = self.rng.u64(ms(range_ms.start)..ms(range_ms.end));
        self.at(self.now + wait, event);
    }
}
