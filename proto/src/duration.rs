//! Durations as people write them: in files, on the command line and in requests.
//!
//! Text without a unit is no duration, because half of its readers would take it for
//! milliseconds.

use std::{ops::RangeInclusive, time::Duration};

/// Reads `250ms`, `5s`, `1m30s`: whole milliseconds, possibly none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            format!("{text} has no unit; write for example {text}s or {text}ms")
        } else {
            "write a number and a unit, for example 5s, 250ms or 2m".to_owned()
        }
    })?;
    // Finer ones would be cut to whole milliseconds without a word.
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err("the shortest is 1ms, in whole milliseconds, for example 5ms".to_owned());
    }
    Ok(duration)
}

/// Reads durations of a range; what is refused is told with the range.
pub fn duration_within(
    range: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| {
        let [least, most] = [range.start(), range.end()].map(|bound| in_days(*bound));
        let duration = parse_duration(text)
            .map_err(|why| format!("{why}; what may be given is {least} to {most}"))?;
        if range.contains(&duration) {
            Ok(duration)
        } else {
            Err(format!("{text} is outside {least} to {most}, for example 5s"))
        }
    }
}

/// As [`duration_text`], whole days as such.
fn in_days(duration: Duration) -> String {
    let (days, rest) = (duration.as_secs() / 86_400, duration.as_secs() % 86_400);
    if days > 1 && rest == 0 { format!("{days}d") } else { duration_text(duration) }
}

/// Writes what was measured, in a sentence: `under 1 ms`, `38 ms`, `1.2 s`.
#[must_use]
pub fn measured_text(took: Duration) -> String {
    match took.as_millis() {
        0 => "under 1 ms".to_owned(),
        ms @ 1..1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

/// Writes a duration exactly, as it can be read: `250ms`, `5s`, `1m30s`.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    let parts =
        [(ms / 3_600_000, "h"), (ms / 60_000 % 60, "m"), (ms / 1000 % 60, "s"), (ms % 1000, "ms")];
    parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_never_nothing() {
        let written =
            [0, 999, 38_000, 1_240_000].map(|us| measured_text(Duration::from_micros(us)));
        assert_eq!(written, ["under 1 ms", "under 1 ms", "38 ms", "1.2 s"]);
    }
}
