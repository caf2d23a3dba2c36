//! The processes that report about leases, and the way to each.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_core::model::ProxyId;
use lb_proto::v1 as pb;
use tokio::sync::mpsc;

/// After how long without a word a process is forgotten; what it was lent has its own times.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The same without a way to it: it may open another, and goes on with what it has meanwhile.
const LOST_AFTER: Duration = Duration::from_millis(1500);

/// Who reports.
#[derive(Debug, Default)]
pub(super) struct Contacts(HashMap<Arc<str>, Contact>);

#[derive(Debug)]
struct Contact {
    proxy: ProxyId,
    outbox: mpsc::Sender<pb::LeaseGrants>,
    heard_at: Instant,
    frame: Option<Frame>,
}

/// The last frame of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frame {
    pub(super) number: u64,
    /// It rests on what is known here.
    pub(super) renews: bool,
    is_answered: bool,
}

impl Contacts {
    pub(super) fn open(
        &mut self,
        proxy: &ProxyId,
        instance: &str,
        outbox: mpsc::Sender<pb::LeaseGrants>,
        now: Instant,
    ) {
        let contact = Contact { proxy: proxy.clone(), outbox, heard_at: now, frame: None };
        self.0.insert(instance.into(), contact);
    }

    /// Notes that a process is alive, and gives its shared name.
    pub(super) fn hear(&mut self, instance: &str, now: Instant) -> Option<Arc<str>> {
        self.0.get_mut(instance)?.heard_at = now;
        self.0.get_key_value(instance).map(|(name, _)| Arc::clone(name))
    }

    /// The processes that report.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// The proxy of a process.
    pub(super) fn proxy(&self, instance: &str) -> Option<&ProxyId> {
        self.0.get(instance).map(|contact| &contact.proxy)
    }

    pub(super) fn forget(&mut self, instance: &str) -> bool {
        self.0.remove(instance).is_some()
    }

    /// Forgets those that were silent for long, and names them.
    pub(super) fn forget_silent(&mut self, now: Instant) -> Vec<Arc<str>> {
        let is_silent = |contact: &Contact| {
            let silence = now.saturating_duration_since(contact.heard_at);
            silence > SILENCE_MAX || silence > LOST_AFTER && contact.outbox.is_closed()
        };
        let silent = self.0.extract_if(|_, contact| is_silent(contact));
        silent.map(|(instance, _)| instance).collect()
    }

    /// Takes a frame in.
    pub(super) fn note_frame(&mut self, instance: &str, number: u64, renews: bool) {
        if let Some(contact) = self.0.get_mut(instance) {
            contact.frame = Some(Frame { number, renews, is_answered: false });
        }
    }

    /// Those whose last frame was not answered.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &Arc<str>> {
        let is_unanswered = |contact: &Contact| contact.frame.is_some_and(|it| !it.is_answered);
        let unanswered = self.0.iter().filter(move |(_, contact)| is_unanswered(contact));
        unanswered.map(|(instance, _)| instance)
    }

    /// The last frame, which is answered by what is sent now.
    pub(super) fn answer_frame(&mut self, instance: &str) -> Frame {
        let frame = self.0.get_mut(instance).and_then(|contact| contact.frame.as_mut());
        frame
            .map(|frame| std::mem::replace(frame, Frame { is_answered: true, ..*frame }))
            .unwrap_or_default()
    }

    /// Sends, unless the process does not read: a grant that is not sent costs nothing but time.
    pub(super) fn send(&self, instance: &str, message: pb::LeaseGrants) {
        if let Some(contact) = self.0.get(instance) {
            contact.outbox.try_send(message).ok();
        }
    }
}
