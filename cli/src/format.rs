//! Times, durations and sizes as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_proto::document::unit::{self, UNLIMITED};

/// How long ago, in at most two units: `41s`, `3m12s`, `2h5m`, `4d3h`.
pub(crate) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// The age of a moment, `-` when it never was.
pub(crate) fn age_of(at_unix_ms: Option<u64>, now_unix_ms: u64) -> String {
    at_unix_ms.map_or_else(|| "-".to_owned(), |at| age(millis(now_unix_ms.saturating_sub(at))))
}

/// Age and clock of what has happened: `41s ago (14:02:11 UTC)`, with the date when it was
/// another day. What seems to be in the future, because clocks differ, happened just now.
pub(crate) fn moment(at_unix_ms: Option<u64>, now_unix_ms: u64) -> String {
    let Some(at) = at_unix_ms else { return "never".to_owned() };
    format!("{} ago ({} UTC)", age_of(Some(at), now_unix_ms), clock(at, now_unix_ms))
}

/// When something is planned: `in 700ms (14:02:11 UTC)`, or `now`.
pub(crate) fn plan(at_unix_ms: Option<u64>, now_unix_ms: u64) -> String {
    match at_unix_ms {
        None => "never".to_owned(),
        Some(at) if at <= now_unix_ms => "now".to_owned(),
        Some(at) => {
            let clock = clock(at, now_unix_ms);
            format!("in {} ({clock} UTC)", duration(millis(at - now_unix_ms)))
        }
    }
}

/// The time of day in UTC, with the date when it was another day.
pub(crate) fn clock(at_unix_ms: u64, now_unix_ms: u64) -> String {
    const DAY_MS: u64 = 86_400_000;
    // The last moment that the calendar behind it can write.
    let at = at_unix_ms.min(253_402_300_799_000);
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + millis(at)).to_string();
    let text = text.trim_end_matches('Z').replace('T', " ");
    if at / DAY_MS == now_unix_ms / DAY_MS { text[11..].to_owned() } else { text }
}

/// `2026-11-22T14:02:11.123Z`.
pub(crate) fn timestamp(at_unix_ms: u64) -> String {
    let at: SystemTime = UNIX_EPOCH + millis(at_unix_ms.min(253_402_300_799_000));
    humantime::format_rfc3339_millis(at).to_string()
}

/// A setting or a waiting time: `250ms`, `5s`, `1.5s`, `2m`.
pub(crate) fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        1000..60_000 => format!("{:.1}s", ms as f64 / 1000.0),
        _ => age(duration),
    }
}

/// A latency in microseconds: `0.21ms`, `9.7ms`, `312ms`, `1.50s`; `-` for none.
pub(crate) fn latency(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us @ 0..1000) => format!("{:.2}ms", us as f64 / 1e3),
        Some(us @ 1000..100_000) => format!("{:.1}ms", us as f64 / 1e3),
        Some(us @ 100_000..1_000_000) => format!("{}ms", us / 1000),
        Some(us) => format!("{:.2}s", us as f64 / 1e6),
    }
}

/// A number of bytes: `17 B`, `1.2 KiB`, `3.4 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let exponent = (bytes.ilog2() / 10) as usize;
    format!("{:.1} {}", bytes as f64 / (1u64 << (10 * exponent)) as f64, UNITS[exponent - 1])
}

/// A setting in milliseconds, exactly, as it can be typed: `250ms`, `5s`, `1m30s`.
pub(crate) fn setting(ms: u32) -> String {
    unit::duration_text(millis(ms.into()))
}

/// A size, exactly, as it can be typed: `1000B`, `64KiB`, `10MiB`.
pub(crate) fn size(bytes: u64) -> String {
    unit::size_text(bytes)
}

/// A bound, where 0 means that there is none.
pub(crate) fn bound(number: u64, write: impl FnOnce(u64) -> String) -> String {
    if number == 0 { UNLIMITED.to_owned() } else { write(number) }
}

/// A rate per second: `0`, `0.4`, `812`.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 0.05 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// A share in percent, with as many digits as tell it from 100: `100%`, `99.98%`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    if part == whole {
        return "100%".to_owned();
    }
    // Rounded down: 99.996 % of success is not 100 %.
    format!("{:.2}%", (part as f64 / whole as f64 * 10_000.0).floor() / 100.0)
}

/// `1 proxy`, `3 proxies`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 21:52:11 UTC.
    const NOW_MS: u64 = 1_795_384_331_000;

    #[test]
    fn ages_have_at_most_two_units() {
        let ages = [0, 59, 60, 192, 7500, 356_400].map(|s| age(Duration::from_secs(s)));
        assert_eq!(ages, ["0s", "59s", "1m0s", "3m12s", "2h5m", "4d3h"]);
    }

    #[test]
    fn moments_carry_age_and_clock() {
        assert_eq!(moment(Some(NOW_MS - 41_000), NOW_MS), "41s ago (21:51:30 UTC)");
        assert_eq!(moment(Some(NOW_MS - 86_400_000), NOW_MS), "1d0h ago (2026-11-21 21:52:11 UTC)");
        assert_eq!(moment(None, NOW_MS), "never");
    }

    #[test]
    fn plans_are_in_the_future_or_due() {
        assert_eq!(plan(Some(NOW_MS + 700), NOW_MS), "in 700ms (21:52:11 UTC)");
        assert_eq!(plan(Some(NOW_MS - 700), NOW_MS), "now");
        assert_eq!(plan(None, NOW_MS), "never");
    }

    #[test]
    fn absurd_times_of_a_server_do_no_harm() {
        assert!(moment(Some(u64::MAX), NOW_MS).starts_with("0s ago (9999-"));
        assert!(plan(Some(u64::MAX), NOW_MS).starts_with("in "));
        assert_eq!(age_of(Some(u64::MAX), NOW_MS), "0s");
        assert!(timestamp(u64::MAX).starts_with("9999-"));
    }

    #[test]
    fn durations_are_written_as_they_are_typed() {
        let written = [250, 5000, 1500, 120_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(written, ["250ms", "5s", "1.5s", "2m0s"]);
    }

    #[test]
    fn settings_lose_nothing() {
        let written = [0, 250, 5000, 1500, 120_000, 3_630_000, 86_400_000].map(setting);
        assert_eq!(written, ["0s", "250ms", "5s", "1s500ms", "2m", "1h30s", "24h"]);
        let written = [0, 1000, 1024, 65_536, 10 << 20, 3 << 30, 1025].map(size);
        assert_eq!(written, ["0B", "1000B", "1KiB", "64KiB", "10MiB", "3GiB", "1025B"]);
        assert_eq!(bound(0, size), "unlimited");
    }

    #[test]
    fn latencies_have_three_digits_or_so() {
        let written = [Some(210), Some(9_700), Some(312_000), Some(1_500_000), None].map(latency);
        assert_eq!(written, ["0.21ms", "9.7ms", "312ms", "1.50s", "-"]);
    }

    #[test]
    fn sizes_use_powers_of_two() {
        let written = [17, 1024, 1_288_490, u64::MAX].map(bytes);
        assert_eq!(written, ["17 B", "1.0 KiB", "1.2 MiB", "16.0 EiB"]);
    }

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!(percent(99_999, 100_000), "99.99%");
        assert_eq!(percent(3, 3), "100%");
        assert_eq!(percent(0, 0), "-");
    }
}
