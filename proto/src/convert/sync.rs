//! The messages of the sync stream.

use lb_core::{
    model::{Epoch, Key, Version},
    sync::{
        Answer, Delta, Digest, FullState, Held, Nonce, Object, Refusal, Rejection, Transmission,
    },
};

use crate::v1 as pb;
use pb::{control_message::Message as Down, proxy_message::Message as Up};

/// The size from which a chunk of a snapshot is sent.
const CHUNK_BYTES: usize = 256 * 1024;

/// A message of the sync stream that makes no sense, with what was wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("malformed sync message: {0}")]
pub struct Malformed(pub &'static str);

/// The messages of one transmission, in order.
#[must_use]
pub fn transmission_to_wire(transmission: Transmission) -> Vec<pb::ControlMessage> {
    match transmission {
        Transmission::Delta(delta) => vec![down(Down::Delta(delta_to_wire(delta)))],
        Transmission::Snapshot(state) => snapshot_to_wire(state),
    }
}

pub(crate) fn delta_to_wire(delta: Delta) -> pb::Delta {
    pb::Delta {
        nonce: delta.nonce.0,
        epoch: epoch_to_wire(delta.to.epoch),
        from_revision: delta.from_revision,
        to_revision: delta.to.revision,
        upserts: delta.upserts.into_iter().map(stored_to_wire).collect(),
        deletes: delta.deletes.iter().map(name_to_wire).collect(),
        digest: digest_to_wire(delta.digest),
        allow_empty: delta.allow_empty,
        committed_unix_ms: delta.committed_unix_ms,
    }
}

fn snapshot_to_wire(state: FullState) -> Vec<pb::ControlMessage> {
    let nonce = state.nonce.0;
    let (begin, end) = (begin_to_wire(&state), end_to_wire(&state));
    let chunk = |objects| down(Down::SnapshotChunk(pb::SnapshotChunk { nonce, objects }));
    let mut messages = vec![down(Down::SnapshotBegin(begin))];
    messages.extend(chunks(state.objects).map(chunk));
    messages.push(down(Down::SnapshotEnd(end)));
    messages
}

pub(crate) fn begin_to_wire(state: &FullState) -> pb::SnapshotBegin {
    pb::SnapshotBegin {
        nonce: state.nonce.0,
        version: Some(version_to_wire(state.version)),
        objects: state.objects.len() as u64,
        allow_empty: state.allow_empty,
        committed_unix_ms: state.committed_unix_ms,
        proxies_told: 0,
    }
}

pub(crate) fn end_to_wire(state: &FullState) -> pb::SnapshotEnd {
    pb::SnapshotEnd { nonce: state.nonce.0, digest: digest_to_wire(state.digest) }
}

/// The objects of a snapshot, in the parts in which they are sent.
pub(crate) fn chunks(
    objects: impl IntoIterator<Item = Object>,
) -> impl Iterator<Item = Vec<pb::StoredObject>> {
    let mut objects = objects.into_iter();
    std::iter::from_fn(move || {
        let mut chunk = Vec::new();
        let mut size = 0;
        while size < CHUNK_BYTES
            && let Some(object) = objects.next()
        {
            size += object.payload.len() + object.key.name.len() + object.key.kind.len() + 16;
            chunk.push(stored_to_wire(object));
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Wraps a message to a proxy.
#[must_use]
pub fn down(message: Down) -> pb::ControlMessage {
    pb::ControlMessage { message: Some(message) }
}

/// Wraps a message to the control plane.
#[must_use]
pub fn up(message: Up) -> pb::ProxyMessage {
    pb::ProxyMessage { message: Some(message) }
}

/// Reads a delta.
pub fn delta_from_wire(wire: pb::Delta) -> Result<Delta, Malformed> {
    Ok(Delta {
        nonce: Nonce(wire.nonce),
        from_revision: wire.from_revision,
        to: Version { epoch: epoch_from_wire(&wire.epoch)?, revision: wire.to_revision },
        upserts: wire.upserts.into_iter().map(stored_from_wire).collect(),
        deletes: wire.deletes.iter().map(name_from_wire).collect(),
        digest: digest_from_wire(&wire.digest)?,
        allow_empty: wire.allow_empty,
        committed_unix_ms: wire.committed_unix_ms,
    })
}

/// Puts the chunks of a snapshot together, on the proxy.
#[derive(Debug)]
pub struct Assembly {
    begin: pb::SnapshotBegin,
    objects: Vec<Object>,
}

impl Assembly {
    /// Begins a snapshot.
    #[must_use]
    pub fn begin(begin: pb::SnapshotBegin) -> Self {
        Self { begin, objects: Vec::new() }
    }

    /// Adds a chunk.
    pub fn chunk(&mut self, chunk: pb::SnapshotChunk) -> Result<(), Malformed> {
        if chunk.nonce != self.begin.nonce {
            return Err(Malformed("a chunk of another snapshot"));
        }
        if (self.objects.len() + chunk.objects.len()) as u64 > self.begin.objects {
            return Err(Malformed("more objects than the snapshot announced"));
        }
        self.objects.extend(chunk.objects.into_iter().map(stored_from_wire));
        Ok(())
    }

    /// Ends the snapshot.
    pub fn end(self, end: &pb::SnapshotEnd) -> Result<FullState, Malformed> {
        if end.nonce != self.begin.nonce {
            return Err(Malformed("the end of another snapshot"));
        }
        if self.objects.len() as u64 != self.begin.objects {
            return Err(Malformed("fewer objects than the snapshot announced"));
        }
        Ok(FullState {
            nonce: Nonce(end.nonce),
            version: version_from_wire(self.begin.version.as_ref())?
                .ok_or(Malformed("a snapshot without a version"))?,
            objects: self.objects,
            digest: digest_from_wire(&end.digest)?,
            allow_empty: self.begin.allow_empty,
            committed_unix_ms: self.begin.committed_unix_ms,
        })
    }
}

/// An ACK when nothing stands refused, else a NACK.
#[must_use]
pub fn answer_to_wire(answer: Answer, apply_duration_us: u32) -> pb::ProxyMessage {
    let version = answer.held.map(|held| version_to_wire(held.version));
    let digest = answer.held.map(|held| digest_to_wire(held.digest)).unwrap_or_default();
    if answer.refused.is_none() && answer.rejections.is_empty() {
        return up(Up::Ack(pb::Ack {
            nonce: answer.nonce.0,
            version,
            digest,
            stage: pb::Stage::Applied.into(),
            apply_duration_us,
            warnings: Vec::new(),
        }));
    }
    let (refused, message) = match answer.refused {
        None => (pb::Refusal::None, String::new()),
        Some((Refusal::Resync, message)) => (pb::Refusal::Resync, message),
        Some((Refusal::WouldEmpty, message)) => (pb::Refusal::WouldEmpty, message),
    };
    up(Up::Nack(pb::Nack {
        nonce: answer.nonce.0,
        version,
        digest,
        rejections: answer.rejections.into_iter().map(rejection_to_wire).collect(),
        refused: refused.into(),
        message,
    }))
}

/// Reads an ACK; `None` for one that does not say *applied*.
pub fn ack_from_wire(wire: &pb::Ack) -> Result<Option<Answer>, Malformed> {
    if wire.stage() != pb::Stage::Applied {
        return Ok(None);
    }
    Ok(Some(Answer {
        nonce: Nonce(wire.nonce),
        held: held_from_wire(wire.version.as_ref(), &wire.digest)?,
        rejections: Vec::new(),
        refused: None,
    }))
}

/// Reads a NACK.
pub fn nack_from_wire(wire: pb::Nack) -> Result<Answer, Malformed> {
    let refused = match pb::Refusal::try_from(wire.refused) {
        Ok(pb::Refusal::None) => None,
        Ok(pb::Refusal::WouldEmpty) => Some((Refusal::WouldEmpty, wire.message)),
        // A refusal of a kind unknown here is cured, if at all, by starting over.
        Ok(pb::Refusal::Resync) | Err(_) => Some((Refusal::Resync, wire.message)),
    };
    Ok(Answer {
        nonce: Nonce(wire.nonce),
        held: held_from_wire(wire.version.as_ref(), &wire.digest)?,
        rejections: wire.rejections.into_iter().map(rejection_from_wire).collect(),
        refused,
    })
}

/// Reads what a Hello or a heartbeat says is held; `None` for nothing.
pub fn held_from_wire(
    version: Option<&pb::Version>,
    digest: &[u8],
) -> Result<Option<Held>, Malformed> {
    let Some(version) = version_from_wire(version)? else { return Ok(None) };
    Ok(Some(Held { version, digest: digest_from_wire(digest)? }))
}

/// A version as the wire has it.
#[must_use]
pub fn version_to_wire(version: Version) -> pb::Version {
    pb::Version { epoch: epoch_to_wire(version.epoch), revision: version.revision }
}

fn version_from_wire(wire: Option<&pb::Version>) -> Result<Option<Version>, Malformed> {
    wire.map(|wire| Ok(Version { epoch: epoch_from_wire(&wire.epoch)?, revision: wire.revision }))
        .transpose()
}

fn epoch_to_wire(epoch: Epoch) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&epoch.0)
}

fn epoch_from_wire(bytes: &[u8]) -> Result<Epoch, Malformed> {
    Epoch::from_slice(bytes).ok_or(Malformed("an epoch has 16 bytes"))
}

/// A digest as the wire has it.
#[must_use]
pub fn digest_to_wire(digest: Digest) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&digest.to_bytes())
}

fn digest_from_wire(bytes: &[u8]) -> Result<Digest, Malformed> {
    Digest::from_slice(bytes).ok_or(Malformed("a digest has 16 bytes"))
}

/// An object as it is stored and sent.
#[must_use]
pub fn stored_to_wire(object: Object) -> pb::StoredObject {
    pb::StoredObject {
        kind: object.key.kind.to_string(),
        name: object.key.name.to_string(),
        revision: object.revision,
        payload: object.payload,
    }
}

/// Reads an object without decoding its payload.
#[must_use]
pub fn stored_from_wire(wire: pb::StoredObject) -> Object {
    Object {
        key: Key { kind: wire.kind.into(), name: wire.name.into() },
        revision: wire.revision,
        payload: wire.payload,
    }
}

fn name_to_wire(key: &Key) -> pb::ObjectName {
    pb::ObjectName { kind: key.kind.to_string(), name: key.name.to_string() }
}

fn name_from_wire(wire: &pb::ObjectName) -> Key {
    Key::new(&wire.kind, &wire.name)
}

/// A rejection as the wire has it.
#[must_use]
pub fn rejection_to_wire(rejection: Rejection) -> pb::Rejection {
    pb::Rejection {
        kind: rejection.key.kind.to_string(),
        name: rejection.key.name.to_string(),
        revision: rejection.revision,
        code: rejection.code,
        message: rejection.message,
    }
}

/// Reads a rejection.
#[must_use]
pub fn rejection_from_wire(wire: pb::Rejection) -> Rejection {
    Rejection {
        key: Key::new(&wire.kind, &wire.name),
        revision: wire.revision,
        code: wire.code,
        message: wire.message,
    }
}
