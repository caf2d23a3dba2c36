//! What the system knows about this process.

use std::fs;

use lb_core::metrics::process::{Process, Sources};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Resident memory; nothing where the system does not tell, or has no descriptor left for it.
pub(crate) fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// CPU time of all threads so far, 0 where the system does not tell.
pub(crate) fn cpu_us() -> u64 {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return 0 };
    // The second field is a name in parentheses that may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let ticks: u64 = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// Everything that is told under names of Prometheus' own.
pub(crate) fn figures() -> Process {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    Process::read(&Sources {
        process_stat: text("/proc/self/stat"),
        system_stat: text("/proc/stat"),
        ticks_per_second: rustix::param::clock_ticks_per_second(),
        page_bytes: rustix::param::page_size() as u64,
        // The one with which the directory is read is not counted.
        open_fds: fs::read_dir("/proc/self/fd")
            .map_or(0, |entries| (entries.count() as u64).saturating_sub(1)),
        max_fds: getrlimit(Resource::Nofile).current.unwrap_or_default(),
    })
}

/// Takes as many descriptors as the system lets this process have; how many that is.
pub(crate) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
