//! The control plane's view of one proxy: what it holds, what is on its way to it,
//! and what it refused.
//!
//! Whatever goes wrong, a session ends up sending a snapshot, but never endlessly:
//! after a few snapshots that did not take, only a newer state is worth another.

use super::{Digest, Held, Publisher, Refusal, Rejection, Transmission};
use crate::model::Version;

/// Names one transmission, so that its answer cannot be mistaken for another's, of
/// this session or of an earlier one with the same proxy. Zero is none.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Nonce(pub u64);

/// Snapshots in a row that may fail to take before only a change leads to another.
const FAILED_SNAPSHOTS_MAX: u32 = 3;

/// A merged delta is one message, and until it is whole a proxy hears nothing else: over a slow
/// line, one that takes longer than the proxy waits for a sign of life would never arrive. So what
/// is larger than this goes as a snapshot, in chunks that are signs of life each. With a lease of
/// 5 s, 2 Mbit/s are enough.
const DELTA_BYTES_MAX: usize = 1 << 20;

/// The state machine behind one stream.
#[derive(Debug)]
pub struct Session {
    held: Option<Held>,
    position: Position,
    pending: Option<Pending>,
    last_nonce: Nonce,
    failed_snapshots: u32,
    /// Snapshots in a row that were refused because they would silence a pool.
    silenced: u32,
    /// Leave to silence pools, of an operator who knows of it.
    consent: bool,
    rejections: Vec<Rejection>,
    refusal: Option<String>,
    divergences: u64,
    snapshots_sent: u64,
    deltas_sent: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Position {
    /// Holds this revision of the published epoch.
    At(u64),
    /// Needs a snapshot.
    Unsynced,
    /// Did not take the snapshot of this revision: only a newer one is worth sending.
    Refused(u64),
    /// Holds this revision of the published epoch, which the publisher has not reached.
    Ahead(u64),
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    nonce: Nonce,
    to: Version,
    digest: Digest,
    snapshot: bool,
    /// It was sent with leave to silence pools.
    consent: bool,
}

/// What a proxy lacks, and how it is to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// By what has changed since this revision.
    Delta(u64),
    /// Whole, which costs as much memory as there is state, until it has been read.
    Snapshot,
}

/// A transmission that a session has decided on. But for the nonce and the leave it says the same
/// to every proxy that lacks the same: whoever sends it to many need not make it for each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sending {
    /// To be repeated in the answer.
    pub nonce: Nonce,
    /// What is sent.
    pub due: Due,
    /// Leave to empty a pool, where that is a whole state. A delta always has it: every write
    /// that emptied a pool had the operator's consent.
    pub allow_empty: bool,
}

/// A proxy's answer to a transmission.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Of the transmission; zero when the proxy speaks for itself.
    pub nonce: Nonce,
    /// What the proxy holds now.
    pub held: Option<Held>,
    /// Objects that keep their former value, all that stand refused.
    pub rejections: Vec<Rejection>,
    /// The transmission was refused whole.
    pub refused: Option<(Refusal, String)>,
}

/// What an answer meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AckOutcome {
    /// The proxy holds this revision and has applied what is valid of it.
    Applied(u64),
    /// The transmission was refused whole.
    Refused,
    /// The digests do not agree; a snapshot follows.
    Diverged,
    /// The answer to something that is no longer asked.
    Stale,
}

impl Session {
    /// Opens a session with a proxy that says what it holds, and which objects of that it
    /// refused.
    #[must_use]
    pub fn open(publisher: &Publisher, held: Option<Held>, rejections: Vec<Rejection>) -> Self {
        let (position, diverged) = placed(publisher, held);
        let refusal = matches!(position, Position::Ahead(_)).then(|| {
            format!(
                "the proxy holds a newer revision than this control plane's {}; was the store \
                 replaced by an older copy? Restore the newest one, or empty the proxy's data \
                 directory and restart it",
                publisher.version().revision
            )
        });
        // What was refused of another store says nothing of this one.
        let is_ours = held.is_some_and(|held| held.version.epoch == publisher.version().epoch);
        Self {
            held,
            position,
            pending: None,
            last_nonce: publisher.first_nonce(),
            failed_snapshots: 0,
            silenced: 0,
            consent: false,
            rejections: if is_ours { rejections } else { Vec::new() },
            refusal,
            divergences: u64::from(diverged),
            snapshots_sent: 0,
            deltas_sent: 0,
        }
    }

    /// How what is to be sent now would be sent, if there is anything. Nothing is due while an
    /// answer is.
    pub fn due(&mut self, publisher: &Publisher) -> Option<Due> {
        let revision = publisher.version().revision;
        if self.pending.is_some() {
            return None;
        }
        if matches!(self.position, Position::Ahead(at) if at <= revision) {
            // The publisher has caught up, and may have taken another way.
            let (position, diverged) = placed(publisher, self.held);
            self.position = position;
            self.refusal = None;
            self.divergences += u64::from(diverged);
        }
        match self.position {
            Position::At(at) | Position::Refused(at) if at == revision => None,
            Position::Ahead(_) => None,
            Position::At(at) if publisher.has_delta(at, DELTA_BYTES_MAX) => Some(Due::Delta(at)),
            Position::At(_) | Position::Unsynced | Position::Refused(_) => Some(Due::Snapshot),
        }
    }

    /// What to send now, if anything.
    pub fn poll(&mut self, publisher: &Publisher) -> Option<Transmission> {
        self.begin(publisher).map(|sending| publisher.transmission(sending))
    }

    /// The same before it is made, see [`Publisher::transmission`]. It counts as sent.
    pub fn begin(&mut self, publisher: &Publisher) -> Option<Sending> {
        let due = self.due(publisher)?;
        self.last_nonce.0 += 1;
        let nonce = self.last_nonce;
        let snapshot = due == Due::Snapshot;
        if snapshot {
            self.snapshots_sent += 1;
        } else {
            self.deltas_sent += 1;
        }
        self.pending = Some(Pending {
            nonce,
            to: publisher.version(),
            digest: publisher.digest(),
            snapshot,
            consent: self.consent,
        });
        let allow_empty = !snapshot || self.consent || publisher.may_empty(self.held);
        Some(Sending { nonce, due, allow_empty })
    }

    /// An operator wants the proxy to take the state of this store although pools that it can
    /// serve now are silent there. Whether it waits for that.
    pub fn consent(&mut self) -> bool {
        if !self.awaits_consent() {
            return false;
        }
        self.consent = true;
        self.silenced = 0;
        self.refusal = None;
        if self.pending.is_none() {
            self.position = Position::Unsynced;
        }
        true
    }

    /// Whether the proxy keeps the state of another store because this one's would silence a
    /// pool.
    #[must_use]
    pub fn awaits_consent(&self) -> bool {
        self.silenced > 0
    }

    /// How many snapshots in a row were refused for that: whoever sends further ones leaves some
    /// time between them.
    #[must_use]
    pub fn silenced(&self) -> u32 {
        self.silenced
    }

    /// Takes a proxy's answer.
    pub fn on_answer(&mut self, answer: Answer) -> AckOutcome {
        if answer.nonce == Nonce::default() {
            return self.on_unasked(&answer);
        }
        let Some(pending) = self.pending.filter(|pending| pending.nonce == answer.nonce) else {
            return AckOutcome::Stale;
        };
        self.pending = None;
        self.held = answer.held;
        if let Some((refusal, message)) = answer.refused {
            self.fail(pending, refusal);
            if pending.snapshot && refusal == Refusal::WouldEmpty {
                self.silenced += 1;
            }
            self.refusal = pending.snapshot.then_some(message);
            return AckOutcome::Refused;
        }
        self.rejections = answer.rejections;
        if answer.held != Some(Held { version: pending.to, digest: pending.digest }) {
            self.divergences += 1;
            self.fail(pending, Refusal::Resync);
            return AckOutcome::Diverged;
        }
        self.refusal = None;
        self.failed_snapshots = 0;
        (self.silenced, self.consent) = (0, false);
        self.position = Position::At(pending.to.revision);
        AckOutcome::Applied(pending.to.revision)
    }

    /// What failed as a delta is sent as a snapshot. A snapshot is tried again, in
    /// case it was damaged on its way, but not one that would empty a pool.
    fn fail(&mut self, pending: Pending, refusal: Refusal) {
        let enough = match refusal {
            // Unless an operator has consented since it was sent.
            Refusal::WouldEmpty => pending.consent || !self.consent,
            Refusal::Resync => {
                self.failed_snapshots += u32::from(pending.snapshot);
                self.failed_snapshots >= FAILED_SNAPSHOTS_MAX
            }
        };
        self.position = if pending.snapshot && enough {
            Position::Refused(pending.to.revision)
        } else {
            Position::Unsynced
        };
    }

    /// The proxy found out by itself, from a heartbeat, that it must start over.
    fn on_unasked(&mut self, answer: &Answer) -> AckOutcome {
        let version = |held: Option<Held>| held.map(|held| held.version);
        let known = version(self.held) == version(answer.held);
        let at = matches!(self.position, Position::At(_));
        let snapshot_is_due = self.pending.is_some_and(|pending| pending.snapshot);
        if answer.refused.is_none() || !known || !at || snapshot_is_due {
            // Said before the latest answer, or a snapshot is on its way, or snapshots
            // are known not to take.
            return AckOutcome::Stale;
        }
        self.divergences += 1;
        self.held = answer.held;
        // A delta that is on its way either replaces what differs or is refused.
        if self.pending.is_none() {
            self.position = Position::Unsynced;
        }
        AckOutcome::Diverged
    }

    /// The revision that the proxy has applied, 0 when it has none of this epoch.
    #[must_use]
    pub fn applied_revision(&self) -> u64 {
        match self.position {
            Position::At(revision) => revision,
            _ => 0,
        }
    }

    /// The revision that was sent last, 0 when none was.
    #[must_use]
    pub fn sent_revision(&self) -> u64 {
        self.pending.map_or_else(|| self.applied_revision(), |pending| pending.to.revision)
    }

    /// What the proxy holds, as it said last.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        self.held
    }

    /// Objects that the proxy refused and for which it uses the former value.
    #[must_use]
    pub fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }

    /// Why the proxy refused the whole state, if it did.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// How often digests did not agree.
    #[must_use]
    pub fn divergences(&self) -> u64 {
        self.divergences
    }

    /// How many snapshots were sent.
    #[must_use]
    pub fn snapshots_sent(&self) -> u64 {
        self.snapshots_sent
    }

    /// How many deltas were sent.
    #[must_use]
    pub fn deltas_sent(&self) -> u64 {
        self.deltas_sent
    }
}

/// Where a proxy that holds this stands, and whether its digest contradicts its
/// version.
fn placed(publisher: &Publisher, held: Option<Held>) -> (Position, bool) {
    let published = publisher.version();
    match held {
        Some(Held { version, digest }) if version.epoch == published.epoch => {
            if version.revision > published.revision {
                (Position::Ahead(version.revision), false)
            } else if version.revision == published.revision && digest != publisher.digest() {
                (Position::Unsynced, true)
            } else {
                (Position::At(version.revision), false)
            }
        }
        _ => (Position::Unsynced, false),
    }
}

#[cfg(test)]
mod tests;
