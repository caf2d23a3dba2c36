//! Durations, sizes and numbers as people write them, here and on the command line.
//!
//! Text without a unit is no duration, because half of its readers would take it for
//! milliseconds; a number without a unit is a size in bytes.

use std::{fmt, marker::PhantomData, time::Duration};

pub use crate::duration::{duration_text, duration_within, parse_duration};
use lb_core::model::CookieAffinity;
pub use lb_core::size::{UNLIMITED, parse_size, size_text};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};

/// Reads how long a session may live: whole seconds, 1 s to 7 days.
pub fn parse_session_ttl(text: &str) -> Result<Duration, String> {
    let duration =
        parse_duration(text).map_err(|why| format!("{why}; what may be given is 1s to 7d"))?;
    if CookieAffinity::TTLS.contains(&duration) && duration.subsec_nanos() == 0 {
        return Ok(duration);
    }
    Err("write 1s to 7d, in whole seconds, for example 1h".to_owned())
}

/// A duration: text with a unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Time(pub Duration);

/// A number of bytes: an integer, or text with a unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(pub u64);

/// A number of bytes where 0 and `unlimited` mean any number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SizeBound(pub u64);

/// A whole number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Number(pub u32);

/// A whole number where 0 and `unlimited` mean any number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NumberBound(pub u32);

/// A value that is read from a number or from text.
trait Unit: Sized {
    const EXPECTED: &'static str;
    fn from_number(number: u64) -> Result<Self, String>;
    fn from_text(text: &str) -> Result<Self, String>;
}

impl Unit for Time {
    const EXPECTED: &'static str = "a duration with its unit in quotes, such as \"5s\"";

    fn from_number(number: u64) -> Result<Self, String> {
        Err(format!("{number} has no unit; write \"{number}s\" or \"{number}ms\""))
    }
    fn from_text(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self)
    }
}

impl Unit for Size {
    const EXPECTED: &'static str = "a number of bytes, such as 8192 or \"8KiB\"";

    fn from_number(number: u64) -> Result<Self, String> {
        Ok(Self(number))
    }
    fn from_text(text: &str) -> Result<Self, String> {
        parse_size(text).map(Self)
    }
}

impl Unit for SizeBound {
    const EXPECTED: &'static str = "a number of bytes, such as \"10MB\", or \"unlimited\"";

    fn from_number(number: u64) -> Result<Self, String> {
        Ok(Self(number))
    }
    fn from_text(text: &str) -> Result<Self, String> {
        if text == UNLIMITED { Ok(Self(0)) } else { parse_size(text).map(Self) }
    }
}

impl Unit for Number {
    const EXPECTED: &'static str = "a whole number";

    fn from_number(number: u64) -> Result<Self, String> {
        u32::try_from(number).map(Self).map_err(|_| format!("{number} is too large"))
    }
    fn from_text(_: &str) -> Result<Self, String> {
        Err("write a whole number without quotes".to_owned())
    }
}

impl Unit for NumberBound {
    const EXPECTED: &'static str = "a whole number, or \"unlimited\"";

    fn from_number(number: u64) -> Result<Self, String> {
        Number::from_number(number).map(|Number(number)| Self(number))
    }
    fn from_text(text: &str) -> Result<Self, String> {
        if text == UNLIMITED {
            return Ok(Self(0));
        }
        Err(format!("write a whole number without quotes, or \"{UNLIMITED}\""))
    }
}

struct Reader<T>(PhantomData<T>);

impl<T: Unit> de::Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::from_number(number).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let number =
            u64::try_from(number).map_err(|_| E::custom(format!("{number} is below zero")))?;
        self.visit_u64(number)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }
}

macro_rules! unit {
    ($type:ident, $schema:literal, |$value:ident| $write:expr, $of_schema:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Reader(PhantomData))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $value = self.0;
                let write: fn(_, S) -> Result<S::Ok, S::Error> = $write;
                write($value, serializer)
            }
        }

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $of_schema.into()
            }
        }

        impl ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                $schema.into()
            }
        }
    };
}

const SIZE_PATTERN: &str = "^[0-9]+([kKmMgG]([iI]?[bB])?|[bB])?$";

unit!(Time, "Duration", |value| |value, to| to.serialize_str(&duration_text(value)), {
    Schema::Object(
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^([0-9]+ *[a-zA-Z]+ *)+$"))
            .description(Some("Numbers with units: 250ms, 5s, 1m30s. Whole milliseconds."))
            .build(),
    )
});
unit!(Size, "Size", |value| |value, to| to.serialize_str(&size_text(value)), {
    size(
        "A number of bytes, also as text with a unit: 8k, 64KiB (of 1024), 10MB (of 1000).",
        SIZE_PATTERN,
    )
});
unit!(
    SizeBound,
    "SizeOrUnlimited",
    |value| |value, to| {
        let text = if value == 0 { UNLIMITED.to_owned() } else { size_text(value) };
        to.serialize_str(&text)
    },
    {
        let pattern = format!("{SIZE_PATTERN}|^{UNLIMITED}$");
        size(
            "A number of bytes, also as 64KiB, 10M (of 1024) or 10MB (of 1000); 0 or unlimited: any number.",
            &pattern,
        )
    }
);
unit!(Number, "Number", |value| |value, to| to.serialize_u32(value), whole_number());
unit!(
    NumberBound,
    "NumberOrUnlimited",
    |value| |value, to| {
        if value == 0 { to.serialize_str(UNLIMITED) } else { to.serialize_u32(value) }
    },
    {
        let word = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([UNLIMITED]));
        Schema::OneOf(
            OneOfBuilder::new()
                .item(whole_number())
                .item(word)
                .description(Some("A whole number; 0 or unlimited: any number."))
                .build(),
        )
    }
);

fn size(description: &str, pattern: &str) -> Schema {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
    Schema::OneOf(
        OneOfBuilder::new().item(number).item(text).description(Some(description)).build(),
    )
}

fn whole_number() -> Schema {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    Schema::Object(number.maximum(Some(u32::MAX)).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_session_can_live_for_is_refused() {
        assert_eq!(parse_session_ttl("90s"), Ok(Duration::from_secs(90)));
        for bad in ["0s", "8d", "1500ms", "soon", ""] {
            assert!(parse_session_ttl(bad).is_err(), "{bad}");
        }
    }
}
