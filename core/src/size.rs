//! Numbers of bytes as people write them, on command lines and in documents.

/// How the absence of a bound is written.
pub const UNLIMITED: &str = "unlimited";

/// Reads `8192`, `8192B`, `8k`, `64KiB`, `10M`: units are powers of 1024, as nginx's and
/// HAProxy's. `KB` is refused, because half of its readers mean 1000.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => u32::MAX,
    };
    if number.is_empty() || shift == u32::MAX {
        return Err("write a number of bytes, for example 4096, 8k, 64KiB or 10M".to_owned());
    }
    let number: Option<u64> = number.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| format!("{text} is too large; write less than 16777216G, for example 10M"))
}

/// Writes a size exactly, as it can be read: `1000B`, `64KiB`, `10MiB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    let (shift, unit) = whole.copied().unwrap_or((0, "B"));
    format!("{}{unit}", bytes >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_size() {
        for bytes in [0, 1, 1000, 1024, 1536, 10 << 20, 3 << 30, u64::MAX] {
            assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
        for bad in ["", "MiB", "10KB", "-1", "1.5M", "99999999999G"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }
}
