//! HTTP/1.0 and HTTP/1.1 without I/O: bytes in, decisions and bytes out.
//!
//! A framing doubt is a refusal, never a guess, and a framing field is never
//! forwarded as received: the body's length is read strictly here, and written anew
//! by [`request::encode`] and [`response::encode`]. RFC numbers are those of 9110
//! (semantics) and 9112 (HTTP/1.1).

pub(crate) mod body;
pub(crate) mod chunked;
mod copy;
pub(crate) mod fields;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod scan;

use lb_core::model::HttpLimits;

/// Protocol versions that this codec speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

/// The most fields that a head can ever have; see [`HttpLimits::fields_max`].
pub(crate) const FIELDS_MAX: usize = HttpLimits::FIELDS_MAX as usize;

/// Room for the fields of one head, on the stack and not initialised.
pub(crate) type FieldStorage<'b> = [std::mem::MaybeUninit<httparse::Header<'b>>; FIELDS_MAX];

/// Empty [`FieldStorage`].
pub(crate) fn field_storage<'b>() -> FieldStorage<'b> {
    [const { std::mem::MaybeUninit::uninit() }; FIELDS_MAX]
}
