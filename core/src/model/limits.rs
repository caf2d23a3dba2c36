//! What one client may ask a proxy to hold: bounds on everything that a client sends.

use std::{ops::RangeInclusive, time::Duration};

use super::{Invalid, pool::bounded};

/// Bounds on the requests of one listener. A request beyond one of them is refused with
/// the status that HTTP has for it, and counted under its reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HttpLimits {
    /// Bytes of a request line; default 8 KiB, as Apache's and nginx's. Beyond: 414.
    pub request_line_bytes_max: u32,
    /// Bytes of a request's head, its line and all fields; default 64 KiB (Envoy: 60).
    /// Beyond: 431.
    pub head_bytes_max: u32,
    /// Fields of a head; default 100, as Envoy's and HAProxy's. Beyond: 431.
    pub fields_max: u32,
    /// Bytes of all trailers together; default 8 KiB. Beyond: 431, if nothing of the
    /// request was answered yet.
    pub trailer_bytes_max: u32,
    /// Bytes of one chunk's extensions; default 256. Beyond: 400.
    pub chunk_extension_bytes_max: u32,
    /// Bytes of a request's body, 0 for any number; default 0: bodies are streamed and
    /// cost no memory. Beyond: 413.
    pub body_bytes_max: u64,
    /// Requests that a connection may send ahead of their answers before the others of
    /// its worker get their turn; default 16.
    pub pipelined_max: u32,
    /// Bytes of an unread body that are read and dropped after an answer while other clients
    /// wait for a place; default 64 KiB. While nobody waits, there is only a bound of time.
    pub drain_bytes_max: u32,
    /// For how long nothing may come of an unread body that is read and dropped after an
    /// answer, so that the answer is not lost to a reset; default 2 s. All of it may take five
    /// times that (nginx: 5 s and 30 s), or half of it while other clients wait for a place.
    pub drain_timeout: Duration,
}

impl HttpLimits {
    /// The default of every bound.
    pub const DEFAULT: Self = Self {
        request_line_bytes_max: 8 * 1024,
        head_bytes_max: 64 * 1024,
        fields_max: 100,
        trailer_bytes_max: 8 * 1024,
        chunk_extension_bytes_max: 256,
        body_bytes_max: 0,
        pipelined_max: 16,
        drain_bytes_max: 64 * 1024,
        drain_timeout: Duration::from_secs(2),
    };

    /// The most fields that any configuration can allow.
    pub const FIELDS_MAX: u32 = 256;
    /// The longest head that any configuration can allow.
    pub const HEAD_BYTES_MAX: u32 = 1024 * 1024;

    /// What [`Self::request_line_bytes_max`] may be.
    pub const REQUEST_LINE_BYTES: RangeInclusive<u32> = 64..=Self::HEAD_BYTES_MAX;
    /// What [`Self::head_bytes_max`] may be.
    pub const HEAD_BYTES: RangeInclusive<u32> = 256..=Self::HEAD_BYTES_MAX;
    /// What [`Self::fields_max`] may be.
    pub const FIELDS: RangeInclusive<u32> = 1..=Self::FIELDS_MAX;
    /// What [`Self::trailer_bytes_max`] may be.
    pub const TRAILER_BYTES: RangeInclusive<u32> = 1..=Self::HEAD_BYTES_MAX;
    /// What [`Self::chunk_extension_bytes_max`] may be.
    pub const CHUNK_EXTENSION_BYTES: RangeInclusive<u32> = 1..=16_384;
    /// What [`Self::pipelined_max`] may be.
    pub const PIPELINED: RangeInclusive<u32> = 1..=10_000;
    /// What [`Self::drain_bytes_max`] may be.
    pub const DRAIN_BYTES: RangeInclusive<u32> = 1..=Self::HEAD_BYTES_MAX;

    /// Checks that each bound lets an ordinary request through and holds no more than a
    /// megabyte.
    pub fn checked(self) -> Result<Self, Invalid> {
        for (field, value, range) in [
            (
                "listener.max_request_line_bytes",
                self.request_line_bytes_max,
                Self::REQUEST_LINE_BYTES,
            ),
            ("listener.max_head_bytes", self.head_bytes_max, Self::HEAD_BYTES),
            ("listener.max_fields", self.fields_max, Self::FIELDS),
            ("listener.max_trailer_bytes", self.trailer_bytes_max, Self::TRAILER_BYTES),
            (
                "listener.max_chunk_extension_bytes",
                self.chunk_extension_bytes_max,
                Self::CHUNK_EXTENSION_BYTES,
            ),
            ("listener.max_pipelined", self.pipelined_max, Self::PIPELINED),
            ("listener.max_drain_bytes", self.drain_bytes_max, Self::DRAIN_BYTES),
        ] {
            if !range.contains(&value) {
                return Err(Invalid::value(
                    field,
                    format!("{field} {value} is outside {} to {}", range.start(), range.end()),
                ));
            }
        }
        if self.request_line_bytes_max > self.head_bytes_max {
            return Err(Invalid::value(
                "listener.max_request_line_bytes",
                format!(
                    "listener.max_request_line_bytes {} is more than listener.max_head_bytes {}, \
                     of which the line is a part; lower the first or raise the second",
                    self.request_line_bytes_max, self.head_bytes_max
                ),
            ));
        }
        bounded("listener.drain_timeout", self.drain_timeout)?;
        Ok(self)
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(HttpLimits::default().checked(), Ok(HttpLimits::default()));
    }

    #[test]
    fn a_bound_that_refuses_everything_or_nothing_is_named() {
        for (limits, field) in [
            (HttpLimits { fields_max: 0, ..HttpLimits::default() }, "listener.max_fields"),
            (HttpLimits { fields_max: 257, ..HttpLimits::default() }, "listener.max_fields"),
            (HttpLimits { head_bytes_max: 1, ..HttpLimits::default() }, "listener.max_head_bytes"),
            (
                HttpLimits { head_bytes_max: 4096, ..HttpLimits::default() },
                "listener.max_request_line_bytes",
            ),
            (
                HttpLimits { drain_timeout: Duration::ZERO, ..HttpLimits::default() },
                "listener.drain_timeout",
            ),
        ] {
            assert_eq!(limits.checked().unwrap_err().field, field);
        }
    }
}
