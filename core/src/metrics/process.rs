//! What the system knows about a process, under the names that Prometheus gave it.
//!
//! Reading is left to the process; what it read is understood here.

use std::fmt;

use super::{Definition, Exposition};

/// Processor time.
const CPU_SECONDS: Definition = Definition::counter(
    "process_cpu_seconds_total",
    &[],
    "Processor time that the process has used, in seconds",
);
/// Memory in use.
const RESIDENT_BYTES: Definition =
    Definition::gauge("process_resident_memory_bytes", &[], "Memory of the process, in bytes");
/// Memory asked for.
const VIRTUAL_BYTES: Definition = Definition::gauge(
    "process_virtual_memory_bytes",
    &[],
    "Address space of the process, in bytes",
);
/// Descriptors in use.
const OPEN_FDS: Definition =
    Definition::gauge("process_open_fds", &[], "Descriptors that the process has open");
/// Descriptors that may be in use.
const MAX_FDS: Definition =
    Definition::gauge("process_max_fds", &[], "Descriptors that the process may have open");
/// When it began.
const START_TIME: Definition = Definition::gauge(
    "process_start_time_seconds",
    &[],
    "When the process began, in seconds since the Unix epoch",
);

/// All of them, in the order in which they are written.
pub const DEFINITIONS: [Definition; 6] =
    [CPU_SECONDS, RESIDENT_BYTES, VIRTUAL_BYTES, OPEN_FDS, MAX_FDS, START_TIME];

/// What the system knows about this process. What it does not tell is 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// Of all threads.
    pub cpu_seconds: f64,
    /// In memory.
    pub resident_bytes: u64,
    /// Asked for.
    pub virtual_bytes: u64,
    /// Open now.
    pub open_fds: u64,
    /// The limit.
    pub max_fds: u64,
    /// Since the Unix epoch.
    pub start_time_seconds: f64,
}

/// What Linux says, as read from `/proc`; empty where it could not be read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `/proc/self/stat`.
    pub process_stat: String,
    /// `/proc/stat`.
    pub system_stat: String,
    /// Ticks of the clock in a second.
    pub ticks_per_second: u64,
    /// Of a page of memory.
    pub page_bytes: u64,
    /// Entries of `/proc/self/fd`.
    pub open_fds: u64,
    /// The soft limit of descriptors.
    pub max_fds: u64,
}

impl Process {
    /// Understands what was read.
    #[must_use]
    pub fn read(sources: &Sources) -> Self {
        // The second field is a name in parentheses that may hold anything.
        let stat = sources.process_stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let fields: Vec<u64> =
            stat.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // Numbered as in proc(5), which counts from 1 and the name as the second.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
        let ticks = sources.ticks_per_second.max(1) as f64;
        let boot = sources.system_stat.lines().find_map(|line| line.strip_prefix("btime "));
        let boot: f64 = boot.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or_default();
        Self {
            cpu_seconds: (field(14) + field(15)) as f64 / ticks,
            resident_bytes: field(24) * sources.page_bytes,
            virtual_bytes: field(23),
            open_fds: sources.open_fds,
            max_fds: sources.max_fds,
            start_time_seconds: boot + field(22) as f64 / ticks,
        }
    }

    /// Writes [`DEFINITIONS`].
    pub fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        exposition.family(&CPU_SECONDS, |family| family.seconds(&[], self.cpu_seconds))?;
        exposition.gauge(&RESIDENT_BYTES, self.resident_bytes as f64)?;
        exposition.gauge(&VIRTUAL_BYTES, self.virtual_bytes as f64)?;
        exposition.gauge(&OPEN_FDS, self.open_fds as f64)?;
        exposition.gauge(&MAX_FDS, self.max_fds as f64)?;
        exposition.gauge(&START_TIME, self.start_time_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::BUILD_INFO, *};

    #[test]
    fn the_documentation_has_a_row_for_each() {
        let text = include_str!("../../../docs/metrics.md");
        let (_, section) = text.split_once("\n## Every process\n").expect("there is a section");
        let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
        let found: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let defined = std::iter::once(BUILD_INFO).chain(DEFINITIONS);
        let expected: Vec<String> = defined.map(|definition| definition.to_string()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_linux_says_is_understood() {
        let sources = Sources {
            process_stat: "77 (a) b) S 1 77 77 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 5000 \
                           8192000 300 18446744073709551615"
                .to_owned(),
            system_stat: "cpu 1 2\nbtime 1700000000\nprocesses 9\n".to_owned(),
            ticks_per_second: 100,
            page_bytes: 4096,
            open_fds: 12,
            max_fds: 1024,
        };
        let expected = Process {
            cpu_seconds: 3.0,
            resident_bytes: 300 * 4096,
            virtual_bytes: 8_192_000,
            open_fds: 12,
            max_fds: 1024,
            start_time_seconds: 1_700_000_050.0,
        };
        assert_eq!(Process::read(&sources), expected);
        assert_eq!(Process::read(&Sources::default()), Process::default());
    }
}
