//! The conversation with the control plane: reports up, grants down, on a stream of its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use lb_core::{
    lease::{Quantity, Term},
    model::{InstanceId, ProxyId},
};
use lb_proto::{
    convert,
    v1::{self as pb, leases_client::LeasesClient},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use tracing::debug;

use super::{Leases, Shelf, State, frames::Frames, held::Held, remembered::Remembered};
use crate::{
    sync::Connected,
    worker::{Fleet, Mail, now},
};

/// Between two reports about a quantity, until the control plane says otherwise.
const PERIOD: Duration = Duration::from_millis(100);
/// Between two looks at what is in use, while anything is.
const LOOK: Duration = Duration::from_millis(20);
/// Between two reports about one quantity, whatever is urgent.
const URGENT_PERIOD: Duration = Duration::from_millis(10);
/// Messages that may wait to be sent. A report that has no room is not sent: the next one
/// says more.
const OUTBOX: usize = 4;
/// Before a stream is opened again that broke.
const REOPEN_AFTER: Duration = Duration::from_millis(200);
/// Between two looks at what is to be remembered.
const SAVE_PERIOD: Duration = Duration::from_secs(1);

/// Holds this proxy's shares until it is dropped.
pub(crate) async fn run(
    leases: Arc<Leases>,
    id: ProxyId,
    instance: InstanceId,
    shelf: Shelf,
    connected: watch::Receiver<Option<Connected>>,
    fleet: Arc<Fleet>,
) {
    let (saved, changes) = watch::channel(Remembered::default());
    tokio::spawn(shelf.keep(changes));
    let keeper = Keeper {
        leases,
        fleet,
        id,
        instance,
        period: PERIOD,
        reported: BTreeMap::new(),
        frames: Frames::default(),
        saved,
        saved_at: now(),
    };
    keeper.run(connected).await;
}

struct Keeper {
    leases: Arc<Leases>,
    fleet: Arc<Fleet>,
    id: ProxyId,
    instance: InstanceId,
    period: Duration,
    /// When each quantity was last spelled out on this stream; not in here if that is due.
    reported: BTreeMap<Quantity, Instant>,
    /// Of this stream.
    frames: Frames,
    /// What is to be on disk.
    saved: watch::Sender<Remembered>,
    /// When that was looked at.
    saved_at: Instant,
}

/// A stream, while there is one.
struct Line {
    reports: mpsc::Sender<pb::LeaseReports>,
    /// Opened by a task of its own: an answer may be long in coming.
    opening: Option<JoinHandle<Result<Streaming<pb::LeaseGrants>, tonic::Status>>>,
    grants: Option<Streaming<pb::LeaseGrants>>,
}

enum Event {
    Look,
    Opened(Result<Streaming<pb::LeaseGrants>, String>),
    Grants(pb::LeaseGrants),
    Broken(String),
    Connected,
    Gone,
}

impl Keeper {
    async fn run(mut self, mut connected: watch::Receiver<Option<Connected>>) {
        let mut line: Option<Line> = None;
        let mut reopen_at = now();
        loop {
            let at = now();
            let wake = self.look(at, line.as_ref());
            let is_leaving = self.leases.is_leaving.load(Relaxed);
            if is_leaving && (line.is_none() || self.is_using()) {
                self.leases.has_left.notify_one();
            }
            if line.is_none() && !is_leaving && at >= reopen_at && self.has_any() {
                line = connected.borrow_and_update().clone().map(|to| self.open(to.channel));
            }
            let event = tokio::select! {
                event = next(&mut line) => event,
                () = self.leases.news.notified() => Event::Look,
                () = sleep_until(wake.into()) => Event::Look,
                changed = connected.changed() => match changed {
                    Ok(()) => Event::Connected,
                    Err(_) => Event::Gone,
                },
            };
            match event {
                Event::Look => {}
                Event::Opened(Ok(grants)) => {
                    if let Some(line) = &mut line {
                        line.grants = Some(grants);
                        line.opening = None;
                    }
                }
                Event::Grants(grants) => self.hear(&grants),
                Event::Opened(Err(problem)) | Event::Broken(problem) => {
                    debug!(problem, "leases are not renewed");
                    line = None;
                    reopen_at = now() + REOPEN_AFTER;
                }
                Event::Connected => {
                    line = None;
                    reopen_at = now();
                }
                // Nobody follows any more; what is in use may end.
                Event::Gone => sleep(LOOK).await,
            }
        }
    }

    /// Whether a slot is taken.
    fn is_using(&self) -> bool {
        self.leases.lock().held.values().any(Held::is_busy)
    }

    fn has_any(&self) -> bool {
        !self.leases.lock().held.is_empty()
    }

    fn open(&mut self, channel: Channel) -> Line {
        self.reported.clear();
        self.frames = Frames::default();
        let (reports, outbox) = mpsc::channel(OUTBOX);
        let mut client = LeasesClient::new(channel);
        let opening = async move {
            let grants = client.hold(ReceiverStream::new(outbox)).await;
            grants.map(tonic::Response::into_inner)
        };
        Line { reports, opening: Some(tokio::spawn(opening)), grants: None }
    }

    /// Sees what is in use, reports what is due, and says when to look again.
    fn look(&mut self, now: Instant, line: Option<&Line>) -> Instant {
        let leases = Arc::clone(&self.leases);
        let state = &mut *leases.lock();
        let is_leaving = leases.is_leaving.load(Relaxed);
        let mut reports = Vec::new();
        let mut wake = now + self.period;
        let is_frame = line.is_some_and(|line| line.reports.capacity() > 0)
            && self.frames.is_due(self.period, now);
        let repeats = self.frames.is_understood;
        for (quantity, held) in &mut state.held {
            let is_urgent = held.look(now);
            if held.ends_overdue(now) {
                self.fleet.tell(|| Mail::LookAgain);
            }
            if held.is_busy() {
                wake = wake.min(now + LOOK);
            }
            let Some(line) = line else { continue };
            let reported = self.reported.get(quantity);
            let due = match reported {
                Some(at) if is_urgent => Some(*at + URGENT_PERIOD),
                Some(_) => None,
                None => Some(now),
            };
            if is_frame || due.is_some_and(|due| due <= now) && line.reports.capacity() > 0 {
                let (repeats, before) = (repeats && reported.is_some(), reports.len());
                held.report(quantity, repeats, now, &mut reports);
                if reports.len() > before {
                    self.reported.insert(quantity.clone(), now);
                }
            } else if let Some(due) = due.filter(|due| *due > now) {
                wake = wake.min(due);
            }
        }
        let (mut frame, mut rests_on) = (0, 0_u64);
        if is_frame {
            frame = self.frames.send(now);
            rests_on = state.held.values().fold(0, |sum, held| sum.wrapping_add(held.rests_on()));
        } else if line.is_some() {
            let next = self.frames.next_at(self.period).filter(|at| *at > now);
            wake = wake.min(next.unwrap_or(wake));
        }
        let is_busy = state.held.values().any(Held::is_busy);
        match line {
            Some(line) if is_leaving && !is_busy => {
                let leaves = pb::LeaseReports { leaves: true, ..self.message(Vec::new()) };
                line.reports.try_send(leaves).ok();
            }
            Some(line) if frame > 0 || !reports.is_empty() => {
                let message = pb::LeaseReports { frame, rests_on, ..self.message(reports) };
                line.reports.try_send(message).ok();
            }
            _ => {}
        }
        self.save(state, now);
        // Never at once again, whatever is due.
        wake.max(now + Duration::from_millis(1))
    }

    fn message(&self, reports: Vec<pb::LeaseReport>) -> pb::LeaseReports {
        pb::LeaseReports {
            proxy_id: self.id.to_string(),
            instance_id: self.instance.to_string(),
            reports,
            ..pb::LeaseReports::default()
        }
    }

    fn hear(&mut self, message: &pb::LeaseGrants) {
        if message.period_ms > 0 {
            self.period = Duration::from_millis(message.period_ms.into());
        }
        let now = now();
        let state = &mut *self.leases.lock();
        if let Some(sent_at) = self.frames.hear(message) {
            let held = state.held.values_mut();
            held.for_each(|held| held.renew(Term(message.term), sent_at, now));
        }
        for grant in &message.grants {
            let quantity = grant.quantity.as_ref().and_then(convert::quantity_from_wire);
            let Some(quantity) = quantity else { continue };
            let Some(held) = state.held.get_mut(&quantity) else { continue };
            match held.hear(grant, now) {
                Ok(true) => {
                    self.reported.remove(&quantity);
                }
                Ok(false) => {}
                // None of these is a fault.
                Err(refused) => debug!(%quantity, %refused, "a grant changes nothing"),
            }
        }
        state.held.values_mut().for_each(Held::publish_heard);
    }

    /// Has kept on disk what the next start may use.
    fn save(&mut self, state: &State, now: Instant) {
        if now < self.saved_at + SAVE_PERIOD {
            return;
        }
        self.saved_at = now;
        let shares =
            state.held.iter().map(|(quantity, held)| (quantity.clone(), held.remembered()));
        let remembered = Remembered::new(shares);
        if *self.saved.borrow() != remembered {
            self.saved.send_replace(remembered);
        }
    }
}

/// The next thing that the control plane says; nothing without a stream.
async fn next(line: &mut Option<Line>) -> Event {
    match line {
        Some(Line { grants: Some(grants), .. }) => match grants.message().await {
            Ok(Some(message)) => Event::Grants(message),
            Ok(None) => Event::Broken("the stream ended".to_owned()),
            Err(status) => Event::Broken(status.message().to_owned()),
        },
        Some(Line { opening: Some(opening), .. }) => match opening.await {
            Ok(Ok(grants)) => Event::Opened(Ok(grants)),
            Ok(Err(status)) => Event::Opened(Err(status.message().to_owned())),
            Err(error) => Event::Opened(Err(error.to_string())),
        },
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
