//! Numbers of bytes as people write them, on command lines and in documents.

use crate::model::shorten;

/// How the absence of a bound is written.
pub const UNLIMITED: &str = "unlimited";

/// The units, largest first of each kind. A letter alone is one of 1024, as nginx and HAProxy
/// read it.
const UNITS: [(&str, &str, u64); 6] = [
    ("GiB", "g", 1 << 30),
    ("MiB", "m", 1 << 20),
    ("KiB", "k", 1 << 10),
    ("GB", "", 1_000_000_000),
    ("MB", "", 1_000_000),
    ("kB", "", 1000),
];

/// Reads `8192`, `8192B`, `8k`, `64KiB`, `10MB`, in capitals or not: `k`, `m`, `g` and `KiB`,
/// `MiB`, `GiB` count in 1024; `kB`, `MB`, `GB` in 1000, as the SI has it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let is_unit = |name: &str| !name.is_empty() && unit.eq_ignore_ascii_case(name);
    let factor = match UNITS.iter().find(|(name, short, _)| is_unit(name) || is_unit(short)) {
        Some((_, _, factor)) => *factor,
        None if unit.is_empty() || is_unit("B") => 1,
        None => 0,
    };
    if number.is_empty() || factor == 0 {
        return Err(format!(
            "{:?} is no number of bytes; write for example 4096, 8k, 64KiB or 10MB (k, m, g and \
             KiB, MiB, GiB count in 1024; kB, MB, GB in 1000)",
            shorten(text)
        ));
    }
    let number: Option<u64> = number.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(factor));
    bytes.ok_or_else(|| {
        format!("{} is too large; write less than 16777216GiB, for example 10MB", shorten(text))
    })
}

/// Writes a size exactly, as it can be read, with the unit that takes the fewest digits:
/// `1000B`, `64KiB`, `10MB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    // Thousands are left as they are: 2000B is as good as 2kB, and older programs read it.
    let units = UNITS
        .iter()
        .filter(|(name, _, factor)| bytes > 0 && bytes.is_multiple_of(*factor) && *name != "kB");
    let least = units.min_by_key(|(_, _, factor)| bytes / factor);
    least.map_or_else(
        || format!("{bytes}B"),
        |(name, _, factor)| format!("{}{name}", bytes / factor),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_size() {
        for bytes in [0, 1, 1000, 1024, 1536, 10 << 20, 3 << 30, 10_000_000, u64::MAX] {
            assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
        let written = [1000, 10_000_000, 2_000_000_000, 64 << 10, 1_024_000_000].map(size_text);
        assert_eq!(written, ["1000B", "10MB", "2GB", "64KiB", "1024MB"]);
    }

    #[test]
    fn binary_and_decimal_units_are_told_apart() {
        for (text, bytes) in [
            ("10", 10),
            ("10B", 10),
            ("10b", 10),
            ("10k", 10 << 10),
            ("10K", 10 << 10),
            ("10KiB", 10 << 10),
            ("10kib", 10 << 10),
            ("10kB", 10_000),
            ("10KB", 10_000),
            ("10m", 10 << 20),
            ("10MiB", 10 << 20),
            ("10MB", 10_000_000),
            ("10mb", 10_000_000),
            ("1g", 1 << 30),
            ("1GiB", 1 << 30),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        let far = "9".repeat(1000);
        for bad in ["", "MiB", "-1", "1.5M", "10 MB", "10Mb/s", "ten", "99999999999G", &far] {
            let refusal = parse_size(bad).unwrap_err();
            assert!(refusal.contains("for example") && refusal.len() < 200, "{refusal}");
        }
    }
}
