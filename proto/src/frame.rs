//! Messages to proxies that are encoded once for all of them.
//!
//! What a change is and what the whole state is does not depend on who is told. Only the nonce
//! does, which the answer repeats. In protobuf the fields of a message may come in any order, so
//! a message is its nonce in front of bytes that all streams share.

use bytes::{BufMut, Bytes};
use lb_core::sync::{Delta, FullState, Nonce};
use prost::{
    Message,
    encoding::{self, WireType},
};

use crate::{convert::sync as convert, v1 as pb};
use pb::control_message::Message as Down;

/// Of `nonce` in every message that has one.
const NONCE_TAG: u32 = 1;
/// Of `snapshot_chunk` and `delta` in a message to a proxy; below 16, so that a byte holds each
/// as a key.
const CHUNK_TAG: u32 = 3;
const DELTA_TAG: u32 = 5;
/// In front of each message of a gRPC stream.
const PREFIX_BYTES: usize = 5;
/// Of a shared message, what is not shared: the tag, its length and a nonce.
const HEAD_BYTES_MAX: usize = 1 + 10 + 11;
/// Longer bytes are not copied: that would cost more than to send one more part.
const COPIED_BYTES_MAX: usize = 4096;

/// A message on its way to a proxy.
#[derive(Clone, Debug)]
pub struct Frame(Content);

#[derive(Clone, Debug)]
enum Content {
    /// For one proxy alone, encoded when it leaves.
    Own(Box<pb::ControlMessage>),
    Shared {
        tag: u32,
        nonce: Nonce,
        body: Bytes,
    },
}

impl Frame {
    /// A change whose bytes are [`delta_body`]'s.
    #[must_use]
    pub fn delta(nonce: Nonce, body: Bytes) -> Self {
        Self(Content::Shared { tag: DELTA_TAG, nonce, body })
    }

    /// Bytes of the encoded message.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match &self.0 {
            Content::Own(message) => message.encoded_len(),
            Content::Shared { tag, nonce, body } => {
                let inner = inner_len(*nonce, body);
                encoding::key_len(*tag) + encoding::encoded_len_varint(inner as u64) + inner
            }
        }
    }

    /// Appends the message as a gRPC stream has it: a zero, its length in four bytes, then its
    /// own. What comes last of it is given back instead, if it is so long that it should not be
    /// copied; it must follow next.
    ///
    /// # Panics
    ///
    /// If the message is longer than 4 GiB, which a gRPC stream cannot have.
    pub fn write(self, buffer: &mut Vec<u8>) -> Option<Bytes> {
        let length = self.encoded_len();
        let is_long =
            matches!(&self.0, Content::Shared { body, .. } if body.len() > COPIED_BYTES_MAX);
        buffer.reserve(PREFIX_BYTES + if is_long { HEAD_BYTES_MAX } else { length });
        buffer.put_u8(0);
        // A wrong length would have the proxy read what follows as something else.
        let told = u32::try_from(length).expect("changes and chunks are of a few MiB at most");
        buffer.put_u32(told);
        match self.0 {
            Content::Own(message) => {
                message.encode_raw(buffer);
                None
            }
            Content::Shared { tag, nonce, body } => {
                encoding::encode_key(tag, WireType::LengthDelimited, buffer);
                encoding::encode_varint(inner_len(nonce, &body) as u64, buffer);
                encoding::uint64::encode(NONCE_TAG, &nonce.0, buffer);
                if is_long {
                    return Some(body);
                }
                buffer.put_slice(&body);
                None
            }
        }
    }
}

impl From<pb::ControlMessage> for Frame {
    fn from(message: pb::ControlMessage) -> Self {
        Self(Content::Own(Box::new(message)))
    }
}

fn inner_len(nonce: Nonce, body: &Bytes) -> usize {
    encoding::uint64::encoded_len(NONCE_TAG, &nonce.0) + body.len()
}

/// A delta but for its nonce.
#[must_use]
pub fn delta_body(delta: Delta) -> Bytes {
    convert::delta_to_wire(Delta { nonce: Nonce::default(), ..delta }).encode_to_vec().into()
}

/// A whole state but for its nonce.
#[derive(Debug)]
pub struct Whole {
    begin: pb::SnapshotBegin,
    chunks: Vec<Bytes>,
    end: pb::SnapshotEnd,
}

impl Whole {
    /// Encodes it.
    #[must_use]
    pub fn new(state: FullState) -> Self {
        let (begin, end) = (convert::begin_to_wire(&state), convert::end_to_wire(&state));
        let body = |objects| pb::SnapshotChunk { nonce: 0, objects }.encode_to_vec().into();
        Self { begin, chunks: convert::chunks(state.objects).map(body).collect(), end }
    }

    /// How many objects it has.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.begin.objects
    }

    /// The messages that it is sent in, with or without leave to empty pools.
    pub fn frames(&self, nonce: Nonce, allow_empty: bool) -> impl Iterator<Item = Frame> {
        let begin = pb::SnapshotBegin { nonce: nonce.0, allow_empty, ..self.begin.clone() };
        let end = pb::SnapshotEnd { nonce: nonce.0, ..self.end.clone() };
        let own = |message| Frame::from(convert::down(message));
        let chunk = move |body: &Bytes| {
            Frame(Content::Shared { tag: CHUNK_TAG, nonce, body: body.clone() })
        };
        let chunks = self.chunks.iter().map(chunk);
        let end = std::iter::once_with(move || own(Down::SnapshotEnd(end)));
        std::iter::once(own(Down::SnapshotBegin(begin))).chain(chunks).chain(end)
    }
}

#[cfg(test)]
mod tests {
    use lb_core::{
        model::{Epoch, Key, Version},
        sync::{Digest, Object, Transmission},
    };

    use super::*;

    fn decoded(frame: &Frame) -> pb::ControlMessage {
        let mut bytes = Vec::new();
        let rest = frame.clone().write(&mut bytes);
        assert!(rest.is_none() || bytes.len() <= PREFIX_BYTES + HEAD_BYTES_MAX);
        bytes.extend(rest.unwrap_or_default());
        let (prefix, message) = bytes.split_at(PREFIX_BYTES);
        assert_eq!(message.len(), frame.encoded_len());
        assert_eq!(prefix[0], 0, "it is not compressed");
        assert_eq!(prefix[1..], u32::try_from(message.len()).unwrap().to_be_bytes());
        pb::ControlMessage::decode(message).unwrap()
    }

    fn objects(count: usize, size: usize) -> Vec<Object> {
        let object = |index: usize| Object {
            key: Key::new("backend", &format!("b{index}")),
            revision: index as u64,
            payload: vec![7; size].into(),
        };
        (0..count).map(object).collect()
    }

    #[test]
    fn shared_messages_are_what_each_would_be_alone() {
        let version = Version { epoch: Epoch([3; 16]), revision: 1 << 40 };
        for nonce in [1, 300, u64::MAX].map(Nonce) {
            let delta = Delta {
                nonce,
                from_revision: 7,
                to: version,
                upserts: objects(3, 50),
                deletes: vec![Key::new("pool", "gone")],
                digest: Digest(9),
                allow_empty: true,
                committed_unix_ms: 12,
            };
            let alone = convert::transmission_to_wire(Transmission::Delta(delta.clone()));
            let frame = Frame::delta(nonce, delta_body(delta));
            assert_eq!([decoded(&frame)], alone[..]);
            assert_eq!(frame.encoded_len(), alone[0].encoded_len());

            let state = FullState {
                nonce,
                version,
                objects: objects(20, 40_000),
                digest: Digest(9),
                allow_empty: false,
                committed_unix_ms: 12,
            };
            let of_nobody = FullState { nonce: Nonce(0), allow_empty: true, ..state.clone() };
            let whole = Whole::new(of_nobody);
            let shared: Vec<_> = whole.frames(nonce, false).map(|f| decoded(&f)).collect();
            let alone = convert::transmission_to_wire(Transmission::Snapshot(state));
            assert!(alone.len() > 4);
            assert_eq!(shared, alone);
        }
    }
}
