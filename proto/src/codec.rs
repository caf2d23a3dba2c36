//! How messages become bytes of a call: as protobuf, through small buffers.
//!
//! A buffer lives as long as its call, and the calls of proxies last for their whole life.
//! Nearly all of their messages are of a few hundred bytes; a larger one makes its buffer
//! grow.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a call allocates for each direction.
const BUFFER_BYTES: usize = 1024;
/// Messages that are ready together are written together, up to this size.
const WRITE_BYTES: usize = 32 * 1024;

/// Encodes messages of one type and decodes those of another; the generated clients and
/// servers use it.
#[derive(Debug)]
pub struct CompactCodec<Sent, Taken>(PhantomData<(Sent, Taken)>);

impl<Sent, Taken> Default for CompactCodec<Sent, Taken> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Sent, Taken> Codec for CompactCodec<Sent, Taken>
where
    Sent: Message + Send + 'static,
    Taken: Message + Default + Send + 'static,
{
    type Encode = Sent;
    type Decode = Taken;
    type Encoder = ProstEncoder<Sent>;
    type Decoder = ProstDecoder<Taken>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Sent, Taken>::raw_encoder(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Sent, Taken>::raw_decoder(buffers())
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, WRITE_BYTES)
}
