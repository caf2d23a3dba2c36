//! A control plane, some proxies, and a bad network between them, in virtual time.
//!
//! A connection is a TCP stream in each direction: in order, and once something is
//! lost nothing follows, until both ends notice, each in its own time. On top of what
//! TCP allows, messages come twice, and late ones reach the next connection.

use std::collections::BinaryHeap;

use fastrand::Rng;
use lb_core::{
    model::Version,
    sync::{AckOutcome, Answer, Held, Nonce, Publisher, Refusal, Rejection, Session, Transmission},
};

use crate::{
    codec::{decode_new, decode_old},
    event::{Connection, Direction, Event, Message, Report, Scheduled},
    proxy::Proxy,
    store::{Commit, Store},
};

/// How often a proxy is told what it should hold.
const HEARTBEAT_MS: u64 = 500;
/// When the faults stop.
const CALM_MS: u64 = 2_500;
/// When all must agree, and no more be said.
const AGREED_MS: u64 = CALM_MS + 4_000;
/// When it is over.
const END_MS: u64 = AGREED_MS + 3 * HEARTBEAT_MS;

pub(crate) struct World {
    rng: Rng,
    now: u64,
    queue: BinaryHeap<Scheduled>,
    scheduled: u64,
    store: Store,
    publisher: Publisher,
    /// Counts starts of the control plane.
    process: u32,
    poll_is_due: bool,
    proxies: Vec<Proxy>,
    connections: Vec<Connection>,
    may_lose_store: bool,
    pub(crate) report: Report,
    pub(crate) trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let store = Store::new(&mut rng);
        let publisher = Publisher::new(store.version, store.objects.clone());
        let count = rng.usize(1..4);
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            store,
            publisher,
            process: 0,
            poll_is_due: false,
            proxies: (0..count)
                .map(|index| Proxy::new([decode_old, decode_new][index % 2]))
                .collect(),
            connections: Vec::new(),
            may_lose_store: seed.is_multiple_of(4),
            report: Report::default(),
            trace: traced.then(Vec::new),
            rng,
        };
        for proxy in 0..count {
            world.after(1..100, Event::Connect { proxy, process: 0 });
        }
        world.after(1..50, Event::Write);
        world.after(1..300, Event::Fault);
        world.after(1..HEARTBEAT_MS, Event::Heartbeats);
        if world.may_lose_store {
            world.at(CALM_MS, Event::Settle);
        }
        world
    }

    /// Runs to the end, or to the first thing that must not be.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let mut sent_when_agreed = None;
        while let Some(next) = self.queue.pop() {
            if next.at_ms > AGREED_MS && sent_when_agreed.is_none() {
                self.check_agreement()?;
                sent_when_agreed = Some(self.report.sent());
            }
            if next.at_ms > END_MS {
                break;
            }
            self.now = next.at_ms;
            self.report.steps += 1;
            if let Some(trace) = &mut self.trace {
                trace.push(format!("{} {:?}", next.at_ms, next.event));
            }
            self.step(next.event)?;
            self.check_sessions()?;
        }
        if sent_when_agreed != Some(self.report.sent()) {
            return Err("something was sent although all agreed".to_owned());
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Write | Event::Fault if self.is_calm() => {}
            Event::Write => {
                let commit = self.store.write(&mut self.rng);
                self.commit(commit);
                let pause = if self.rng.u8(..4) == 0 { 1..5 } else { 20..250 };
                self.after(pause, Event::Write);
            }
            Event::Settle => {
                let commit = self.store.settle();
                self.commit(commit);
            }
            Event::Fault => {
                self.fault()?;
                self.after(50..700, Event::Fault);
            }
            Event::Heartbeats => {
                let held = self.published();
                for connection in 0..self.connections.len() {
                    if self.connections[connection].session.is_some() {
                        self.send(connection, Direction::Down, Message::Heartbeat(held));
                    }
                }
                self.at(self.now + HEARTBEAT_MS, Event::Heartbeats);
            }
            Event::Poll => {
                self.poll_is_due = false;
                for connection in 0..self.connections.len() {
                    self.poll(connection)?;
                }
            }
            Event::Connect { proxy, process } => self.connect(proxy, process),
            Event::Applied { proxy, process, nonce, by } => self.applied(proxy, process, nonce, by),
            Event::ProxyNotices { connection } => {
                let Connection { proxy, proxy_process: process, .. } = self.connections[connection];
                if self.proxies[proxy].connection == Some(connection) {
                    self.proxies[proxy].connection = None;
                    self.after(1..300, Event::Connect { proxy, process });
                }
            }
            Event::ControlPlaneNotices { connection } => {
                self.connections[connection].session = None;
            }
            Event::Delivery { connection, message } => self.deliver(connection, *message)?,
        }
        Ok(())
    }

    fn commit(&mut self, Commit { upserts, deletes }: Commit) {
        self.report.commits += 1;
        self.publisher.commit(self.store.version.revision, upserts, deletes, self.now);
        if !self.poll_is_due {
            self.poll_is_due = true;
            self.after(1..10, Event::Poll);
        }
    }

    fn fault(&mut self) -> Result<(), String> {
        let proxy = self.rng.usize(..self.proxies.len());
        match self.rng.u8(..12) {
            0..5 => {
                self.report.corruptions += 1;
                self.proxies[proxy].corrupt(&mut self.rng);
                self.proxies[proxy].check(&self.store.history)?;
            }
            5..10 => {
                self.report.proxy_restarts += 1;
                let connection = self.proxies[proxy].connection;
                self.proxies[proxy].restart(&mut self.rng)?;
                self.proxies[proxy].check(&self.store.history)?;
                if let Some(connection) = connection {
                    self.connections[connection].broken = [true; 2];
                    self.after(1..200, Event::ControlPlaneNotices { connection });
                }
                let process = self.proxies[proxy].process;
                self.after(1..200, Event::Connect { proxy, process });
            }
            _ => {
                self.report.publisher_restarts += 1;
                if self.may_lose_store && self.rng.bool() {
                    self.report.epochs += 1;
                    self.store.recreate(&mut self.rng);
                }
                self.process += 1;
                self.publisher = Publisher::new(self.store.version, self.store.objects.clone());
                for connection in 0..self.connections.len() {
                    if self.connections[connection].session.take().is_some() {
                        self.connections[connection].broken = [true; 2];
                        self.after(1..200, Event::ProxyNotices { connection });
                    }
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, proxy: usize, process: u32) {
        let this = &self.proxies[proxy];
        if this.process != process || this.connection.is_some() {
            return;
        }
        let (held, connection) = (this.subscriber.held(), self.connections.len());
        self.connections.push(Connection::new(proxy, process, self.process, self.now, held));
        self.proxies[proxy].connection = Some(connection);
        let rejections = self.proxies[proxy].subscriber.rejections().cloned().collect();
        self.send(connection, Direction::Up, Message::Hello(held, rejections));
    }

    /// All workers of a proxy use the new state now.
    fn applied(&mut self, proxy: usize, process: u32, nonce: Nonce, asked_by: u32) {
        let this = &self.proxies[proxy];
        let (true, Some(connection)) = (this.process == process, this.connection) else { return };
        let answer = this.subscriber.answer(nonce);
        let version = answer.held.expect("a proxy that applied something holds it").version;
        self.connections[connection].applied.push(version);
        self.send(connection, Direction::Up, Message::Answer { answer, asked_by });
    }

    fn send(&mut self, connection: usize, direction: Direction, message: Message) {
        let way = direction as usize;
        if self.connections[connection].broken[way] {
            return;
        }
        let faulty = !self.is_calm();
        if faulty && self.rng.u8(..40) == 0 {
            self.report.lost += 1;
            self.connections[connection].broken[way] = true;
            self.after(1..600, Event::ProxyNotices { connection });
            self.after(1..600, Event::ControlPlaneNotices { connection });
            return;
        }
        let slow = faulty && self.rng.u8(..16) == 0;
        let delay = if slow { self.rng.u64(100..1500) } else { self.rng.u64(1..30) };
        let at = self.connections[connection].latest_ms[way].max(self.now + delay);
        self.connections[connection].latest_ms[way] = at;
        if faulty && self.rng.u8(..16) == 0 {
            self.report.doubled += 1;
            let message = Box::new(message.clone());
            let late = self.rng.u64(1..400);
            self.at(at + late, Event::Delivery { connection, message });
        }
        self.at(at, Event::Delivery { connection, message: Box::new(message) });
    }

    fn deliver(&mut self, connection: usize, message: Message) -> Result<(), String> {
        match message {
            Message::Hello(held, rejections) => {
                self.hello(connection, held, rejections);
                self.poll(connection)
            }
            Message::Answer { answer, asked_by } => {
                let Some(receiver) = self.receiver(connection, &answer) else { return Ok(()) };
                let stray = receiver != connection && asked_by == self.process;
                self.answered(receiver, answer, stray)
            }
            Message::Heartbeat(held) => {
                let proxy = &self.proxies[self.connections[connection].proxy];
                if proxy.connection == Some(connection)
                    && let Some(answer) = proxy.subscriber.on_heartbeat(held)
                {
                    if !proxy.corrupt {
                        return Err("a sound proxy asks to start over".to_owned());
                    }
                    let message = Message::Answer { answer, asked_by: self.process };
                    self.send(connection, Direction::Up, message);
                }
                Ok(())
            }
            Message::Transmission(transmission) => self.transmitted(connection, transmission),
        }
    }

    fn hello(&mut self, connection: usize, held: Option<Held>, rejections: Vec<Rejection>) {
        let this = &mut self.connections[connection];
        if this.process != self.process {
            self.after(1..200, Event::ProxyNotices { connection });
        } else if !std::mem::replace(&mut this.greeted, true) {
            this.session = Some(Session::open(&self.publisher, held, rejections));
        }
    }

    /// Who gets an answer: a late one may hit the next session of the same proxy.
    fn receiver(&mut self, connection: usize, answer: &Answer) -> Option<usize> {
        let this = &self.connections[connection];
        if this.session.is_some() {
            return Some(connection);
        }
        // Nothing survives the process that it was meant for; and what a proxy says
        // unasked has no nonce that could tell connections apart.
        if this.process != self.process || answer.nonce == Nonce::default() || self.is_calm() {
            return None;
        }
        let later = self.connections.iter().enumerate().skip(connection + 1);
        let mut others = later.filter(|(_, other)| other.proxy == this.proxy);
        let (other, _) = others.find(|(_, other)| other.session.is_some())?;
        self.report.strays += 1;
        Some(other)
    }

    fn answered(&mut self, connection: usize, answer: Answer, stray: bool) -> Result<(), String> {
        let this = &mut self.connections[connection];
        let session = this.session.as_mut().expect("a receiver has a session");
        let (nonce, held) = (answer.nonce, answer.held);
        match answer.refused {
            Some((Refusal::Resync, _)) => self.report.resyncs += 1,
            Some((Refusal::WouldEmpty, _)) => self.report.would_empty += 1,
            None => self.report.rejections += answer.rejections.len() as u64,
        }
        let outcome = session.on_answer(answer);
        let asked = this.unacknowledged == Some(nonce);
        if stray && outcome != AckOutcome::Stale {
            return Err(format!("connection {connection} took an answer to an earlier one"));
        }
        match outcome {
            AckOutcome::Applied(revision) => {
                self.report.applied += 1;
                let version = Version { revision, ..self.publisher.version() };
                let right = held.is_some_and(|held| {
                    held.version == version
                        && self.store.history.get(&version) == Some(&held.digest)
                });
                if !asked || !right || !this.applied.contains(&version) {
                    return Err(format!("connection {connection} has not applied {version}"));
                }
            }
            AckOutcome::Stale if asked => return Err("an answer that was due is stale".to_owned()),
            AckOutcome::Stale => self.report.stale += 1,
            AckOutcome::Diverged => self.report.diverged += 1,
            AckOutcome::Refused => {}
        }
        if outcome != AckOutcome::Stale && nonce != Nonce::default() {
            if !asked {
                return Err(format!("{nonce:?} is no nonce of connection {connection}"));
            }
            this.unacknowledged = None;
        }
        self.poll(connection)
    }

    fn transmitted(&mut self, connection: usize, sent: Transmission) -> Result<(), String> {
        let Connection { proxy, process: asked_by, .. } = self.connections[connection];
        let this = &mut self.proxies[proxy];
        if this.connection != Some(connection) {
            // A whole state of another epoch cannot be told from a newer one: keeping
            // streams apart is the transport's duty. For the rest, versions do.
            let held = this.subscriber.held().map(|held| held.version.epoch);
            let foreign = matches!(&sent, Transmission::Snapshot(state)
                if held != Some(state.version.epoch));
            if foreign || self.now >= CALM_MS {
                return Ok(());
            }
            self.report.strays += 1;
        }
        match this.take(sent, &self.store.history, &mut self.rng)? {
            Ok(update) => {
                let (process, nonce) = (this.process, update.nonce);
                self.after(0..40, Event::Applied { proxy, process, nonce, by: asked_by });
            }
            Err(answer) => {
                if let Some(connection) = this.connection {
                    self.send(connection, Direction::Up, Message::Answer { answer, asked_by });
                }
            }
        }
        Ok(())
    }

    fn poll(&mut self, connection: usize) -> Result<(), String> {
        let this = &mut self.connections[connection];
        let Some(session) = &mut this.session else { return Ok(()) };
        let Some(transmission) = session.poll(&self.publisher) else { return Ok(()) };
        let (nonce, count) = match &transmission {
            Transmission::Delta(delta) => (delta.nonce, &mut self.report.deltas),
            Transmission::Snapshot(state) => (state.nonce, &mut self.report.snapshots),
        };
        *count += 1;
        if let Some(due) = this.unacknowledged.replace(nonce) {
            return Err(format!("sent {nonce:?} while the answer to {due:?} was due"));
        }
        self.send(connection, Direction::Down, Message::Transmission(transmission));
        Ok(())
    }

    /// No session may believe more than its proxy has done.
    fn check_sessions(&self) -> Result<(), String> {
        if self.publisher.digest() != self.store.objects.digest() {
            return Err("the publisher's digest is not the store's".to_owned());
        }
        let published = self.published();
        for (number, connection) in self.connections.iter().enumerate() {
            let Some(session) = &connection.session else { continue };
            let version = Version { revision: session.applied_revision(), ..published.version };
            if version.revision > 0 && !connection.applied.contains(&version) {
                return Err(format!("session {number} believes that {version} was applied"));
            }
            if version == published.version && session.held() != Some(published) {
                return Err(format!("session {number} overlooks a digest at {version}"));
            }
        }
        Ok(())
    }

    /// All proxies hold what is published, serve what is valid in it, and the sessions know.
    fn check_agreement(&mut self) -> Result<(), String> {
        let published = self.published();
        for (number, proxy) in self.proxies.iter_mut().enumerate() {
            let held = proxy.subscriber.held();
            if held != Some(published) || proxy.corrupt {
                return Err(format!("proxy {number} holds {held:?}, not {published:?}"));
            }
            if proxy.subscriber.objects() != &self.store.objects {
                return Err(format!("proxy {number} holds other objects under one digest"));
            }
            proxy.check(&self.store.history)?;
            let session = proxy.connection.and_then(|at| self.connections[at].session.as_ref());
            let told = session.map(|it| (it.applied_revision(), it.rejections().to_vec()));
            let refuses = proxy.subscriber.rejections().cloned().collect();
            if told != Some((published.version.revision, refuses)) {
                return Err(format!("proxy {number} is known as {told:?}"));
            }
        }
        Ok(())
    }

    fn published(&self) -> Held {
        Held { version: self.publisher.version(), digest: self.publisher.digest() }
    }

    fn is_calm(&self) -> bool {
        self.now >= CALM_MS
    }

    fn after(&mut self, delay: std::ops::Range<u64>, event: Event) {
        let at = self.now + self.rng.u64(delay);
        self.at(at, event);
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Scheduled { at_ms, number: self.scheduled, event });
    }
}
