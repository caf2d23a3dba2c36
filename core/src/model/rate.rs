//! How many requests in which time.

use std::{fmt, str::FromStr};

use super::{Invalid, invalid::shorten};

/// A rate of requests, as it is written: `100/s`, `600/m`, `10/h`, `1000/d`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Rate {
    count: u32,
    unit: RateUnit,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum RateUnit {
    Second,
    Minute,
    Hour,
    Day,
}

impl RateUnit {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    fn letter(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
        }
    }

    fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 24 * 3600,
        }
    }
}

impl Rate {
    /// The highest rate, per second: more than any one limit has been seen to need, and
    /// low enough for decades of it to be counted.
    pub const PER_SECOND_MAX: u32 = 10_000_000;

    /// This many per second; must be 1 to ten million.
    pub fn per_second(count: u32) -> Result<Self, Invalid> {
        Self::new(u64::from(count), RateUnit::Second)
    }

    /// Millionths of a request per second, rounded down; at least 11.
    #[must_use]
    pub fn micros(self) -> u64 {
        u64::from(self.count) * 1_000_000 / self.unit.seconds()
    }

    /// A second's worth, which a limit's burst is by default; at least 1.
    #[must_use]
    pub fn one_second(self) -> u32 {
        let whole = u64::from(self.count) / self.unit.seconds();
        u32::try_from(whole).unwrap_or(u32::MAX).max(1)
    }

    fn new(count: u64, unit: RateUnit) -> Result<Self, Invalid> {
        let shown = format!("{count}/{}", unit.letter());
        if count == 0 {
            return Err(Invalid::value(
                "limit.rate",
                format!(
                    "rate {shown} would refuse every request; give at least 1, or remove what \
                     is not to be reached"
                ),
            ));
        }
        let count = u32::try_from(count)
            .ok()
            .filter(|&count| u64::from(count) / unit.seconds() <= u64::from(Self::PER_SECOND_MAX))
            .ok_or_else(|| {
                Invalid::value(
                    "limit.rate",
                    format!(
                        "rate {shown} is more than {} per second; a limit that high limits nothing",
                        Self::PER_SECOND_MAX
                    ),
                )
            })?;
        Ok(Self { count, unit })
    }
}

impl FromStr for Rate {
    type Err = Invalid;

    /// Reads `COUNT/UNIT`, with the units `s`, `m`, `h` and `d`; a bare number is per
    /// second.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (count, letter) = text.split_once('/').unwrap_or((text, "s"));
        let unit = RateUnit::ALL.into_iter().find(|unit| unit.letter() == letter);
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        match (unit, digits) {
            // So many digits that it does not fit is more than any rate.
            (Some(unit), true) => Self::new(count.parse().unwrap_or(u64::MAX), unit),
            _ => {
                let shown = shorten(text);
                Err(Invalid::value(
                    "limit.rate",
                    format!(
                        "rate {shown:?} must be a whole number and a unit: 100/s, 600/m, 10/h, 1000/d"
                    ),
                ))
            }
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.unit.letter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_back_and_come_to_what_they_say() {
        for (text, micros, burst) in [
            ("100/s", 100_000_000, 100),
            ("90/m", 1_500_000, 1),
            ("600/m", 10_000_000, 10),
            ("1/h", 277, 1),
            ("1/d", 11, 1),
            ("10000000/s", 10_000_000_000_000, 10_000_000),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.micros(), rate.one_second()), (micros, burst), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!("7".parse::<Rate>().unwrap().to_string(), "7/s");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, hint) in [
            ("0/s", "refuse every request"),
            ("10000001/s", "more than 10000000"),
            ("99999999999999999999999/d", "more than 10000000"),
            ("-1/s", "whole number"),
            ("1.5/s", "whole number"),
            ("/s", "whole number"),
            ("", "whole number"),
            ("5/w", "100/s, 600/m"),
            ("5/s/s", "100/s, 600/m"),
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.message.contains(hint), "{text}: {error}");
            assert_eq!(error.field, "limit.rate");
        }
        assert!(Rate::per_second(0).is_err());
    }
}
