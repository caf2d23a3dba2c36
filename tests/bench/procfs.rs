//! CPU time and memory of processes, as `/proc` tells them.

use std::{fs, num::NonZero, thread, time::Duration};

/// CPU time of these processes, all their threads, in microseconds.
pub(crate) fn cpu_us(processes: &[u32]) -> Result<f64, String> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut ticks = 0;
    for id in processes {
        let path = format!("/proc/{id}/stat");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        ticks += parse_cpu_ticks(&text).ok_or_else(|| format!("{path}: {text:?}"))?;
    }
    Ok(ticks as f64 * 1e6 / ticks_per_second as f64)
}

/// CPU time of those threads of these processes that serve no traffic: of control planes, all. Finer
/// than [`cpu_us`], and without what threads took that have ended.
pub(crate) fn cpu_off_workers(processes: &[u32]) -> Result<Duration, String> {
    let mut sum = Duration::ZERO;
    for id in processes {
        let tasks = format!("/proc/{id}/task");
        let threads = fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))?;
        for thread in threads {
            let thread = thread.map_err(|error| format!("{tasks}: {error}"))?.path();
            let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
            // A thread that has ended meanwhile took nothing worth mentioning.
            let Ok(times) = fs::read_to_string(thread.join("schedstat")) else { continue };
            let nanoseconds = times.split_whitespace().next().and_then(|time| time.parse().ok());
            if !name.starts_with("worker-") {
                sum += Duration::from_nanos(nanoseconds.ok_or("schedstat cannot be read")?);
            }
        }
    }
    Ok(sum)
}

/// Memory of these processes in bytes: what is resident for one; for several, which share
/// much, their proportional shares of it.
pub(crate) fn memory(processes: &[u32]) -> Result<f64, String> {
    let field = if processes.len() == 1 { "Rss" } else { "Pss" };
    let mut kilobytes = 0;
    for id in processes {
        let path = format!("/proc/{id}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        kilobytes += parse_kilobytes(&text, field).ok_or_else(|| format!("{path}: no {field}"))?;
    }
    Ok(kilobytes as f64 * 1024.0)
}

/// The machine in one line.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, name)| name.trim());
    let cores = thread::available_parallelism().map_or(0, NonZero::get);
    format!("Linux {}, {cores} cores, {model}", kernel.trim())
}

/// User and system time of `/proc/PID/stat`: its 14th and 15th fields. The second is a
/// name in parentheses, which may contain anything.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn parse_kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "412 (a) b (c) S 1 412 412 0 -1 4194304 900 0 0 0 250 130 7 9 20 0 3 0 5";
        assert_eq!(parse_cpu_ticks(stat), Some(380));
        assert_eq!(parse_cpu_ticks("412 (short) S 1"), None);
    }

    #[test]
    fn memory_fields_are_told_apart() {
        let rollup = "55d0-7ffe ---p 00000000 00:00 0  [rollup]\nRss:  5312 kB\nPss:  2101 kB\n\
                      Pss_Dirty:  900 kB\n";
        assert_eq!(parse_kilobytes(rollup, "Pss"), Some(2101));
        assert_eq!(parse_kilobytes(rollup, "Rss"), Some(5312));
        assert_eq!(parse_kilobytes(rollup, "Swap"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let this = [std::process::id()];
        assert!(memory(&this).unwrap() > 100_000.0);
        assert!(cpu_us(&this).is_ok());
    }
}
