//! How much memory this process may have, and how much it has.
//!
//! The bound is what the operator says, else that of the container. In a container of its
//! own the process counts what the kernel counts there, socket buffers included; in one that
//! it shares, and under a bound of its own, it counts its resident set: it must not give
//! anything up for what others take.

use std::{
    cell::Cell,
    fs, io,
    path::{Path, PathBuf},
};

use lb_core::overload::Usage;
use tracing::{info, warn};

use crate::process;

/// A bound above this is none: the kernel writes the largest number of pages for it.
const BOUND_MAX: u64 = 1 << 60;

/// The bound, and where it comes from.
#[derive(Debug)]
pub(crate) struct Memory {
    /// In bytes; 0 for none.
    limit: u64,
    /// The container whose bound it is, if the process is alone in it as far as names tell.
    container: Option<Container>,
    pub(crate) origin: Origin,
    last: Cell<Read>,
}

/// The last reading of what is in use.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    used: u64,
    has_failed: bool,
}

/// Who says how much memory there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    Flag,
    Container,
    Nobody,
}

/// A control group that bounds memory.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Container {
    directory: PathBuf,
    files: &'static Files,
}

/// What the files of a control group are called, which differs between its two versions.
#[derive(Debug, Eq, PartialEq)]
struct Files {
    limit: &'static str,
    used: &'static str,
    /// Of `memory.stat`: file contents that can be dropped.
    droppable: &'static str,
}

const VERSION_2: Files =
    Files { limit: "memory.max", used: "memory.current", droppable: "inactive_file " };
const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    droppable: "total_inactive_file ",
};

impl Memory {
    /// The bound that a flag names (0: none), else that of the container.
    pub(crate) fn new(flag: Option<u64>) -> Self {
        match flag {
            Some(0) => Self::bounded(0, None, Origin::Nobody),
            Some(limit) => Self::bounded(limit, None, Origin::Flag),
            None => Self::of_container(
                Path::new("/sys/fs/cgroup"),
                &fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
            ),
        }
    }

    /// The least bound of the groups that `membership`, as `/proc/self/cgroup` has it, names.
    fn of_container(root: &Path, membership: &str) -> Self {
        let groups = membership.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let path = path.trim_start_matches('/');
            match controllers {
                "" => Some((root.to_owned(), path, &VERSION_2)),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    Some((root.join("memory"), path, &VERSION_1))
                }
                _ => None,
            }
        });
        let bounds = groups.flat_map(|(top, path, files)| bounds(&top, path, files));
        match bounds.min_by_key(|(limit, _)| *limit) {
            Some((limit, container)) => Self::bounded(limit, container, Origin::Container),
            None => Self::bounded(0, None, Origin::Nobody),
        }
    }

    fn bounded(limit: u64, container: Option<Container>, origin: Origin) -> Self {
        Self { limit, container, origin, last: Cell::default() }
    }

    /// How much is in use, of how much.
    pub(crate) fn usage(&self) -> Usage {
        let of_container = || {
            let container = self.container.as_ref()?;
            container.is_of(std::process::id()).then(|| container.used()).flatten()
        };
        self.take(of_container().or_else(process::resident_bytes))
    }

    /// Takes a reading in. While none can be had, as when the system has no memory for it, what
    /// was in use last still is: nothing at all would mean that all is well.
    fn take(&self, read: Option<u64>) -> Usage {
        let last = self.last.get();
        let used = read.unwrap_or(last.used);
        let has_failed = read.is_none();
        if self.limit > 0 && has_failed != last.has_failed {
            if has_failed {
                warn!(
                    used,
                    "the memory in use cannot be read (/proc/self/statm, memory.current); as long \
                     as that lasts, overload is judged by the last reading"
                );
            } else {
                info!(used, "the memory in use can be read again");
            }
        }
        self.last.set(Read { used, has_failed });
        Usage { used, limit: self.limit }
    }
}

/// The bounds of a group and of those around it. What is used is told for the innermost only,
/// since others share what is around it.
fn bounds(top: &Path, path: &str, files: &'static Files) -> Vec<(u64, Option<Container>)> {
    let own = top.join(path);
    // Within a namespace the path may be that of the world outside.
    let own = if own.join(files.limit).exists() { own } else { top.to_owned() };
    let mut found = Vec::new();
    for (outwards, directory) in own.ancestors().enumerate() {
        if !directory.starts_with(top) {
            break;
        }
        if let Ok(limit) = read_number(&directory.join(files.limit))
            && limit < BOUND_MAX
        {
            let container = Container { directory: directory.to_owned(), files };
            found.push((limit, (outwards == 0).then_some(container)));
        }
    }
    found
}

impl Container {
    /// Whether this is its only process.
    fn is_of(&self, process: u32) -> bool {
        fs::read_to_string(self.directory.join("cgroup.procs"))
            .is_ok_and(|members| members.trim_end().parse() == Ok(process))
    }

    fn used(&self) -> Option<u64> {
        let used = read_number(&self.directory.join(self.files.used)).ok()?;
        let stat = fs::read_to_string(self.directory.join("memory.stat")).unwrap_or_default();
        let droppable = stat.lines().find_map(|line| line.strip_prefix(self.files.droppable));
        let droppable = droppable.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        Some(used.saturating_sub(droppable))
    }
}

/// Reads a number; `max` is none.
fn read_number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Control groups, as files of which each is named with its content.
    fn groups(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn limit(files: &[(&str, &str)], membership: &str) -> u64 {
        Memory::of_container(groups(files).path(), membership).limit
    }

    #[test]
    fn the_least_bound_around_the_process_counts() {
        let two = [("memory.max", "max\n"), ("a/memory.max", "500\n"), ("a/b/memory.max", "900\n")];
        assert_eq!(limit(&two, "0::/a/b\n"), 500);
        assert_eq!(limit(&two, "0::/\n"), 0);
        // From within a namespace only its own top can be seen.
        assert_eq!(limit(&[("memory.max", "300\n")], "0::/of/the/host\n"), 300);
        let one = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/memory.limit_in_bytes", "700\n"),
        ];
        assert_eq!(limit(&one, "8:pids:/a\n4:cpu,memory:/a\n0::/\n"), 700);
        assert_eq!(limit(&one, "4:memory:/\n"), 0);
        assert_eq!(limit(&[], "0::/\n") + limit(&two, "nonsense"), 0);
    }

    #[test]
    fn what_others_take_counts_only_in_a_container_of_ones_own() {
        let own = std::process::id().to_string();
        let of = |members: &str| {
            let root = groups(&[
                ("a/memory.max", "1000"),
                ("a/memory.current", "800"),
                ("a/memory.stat", "anon 1\ninactive_file 300\n"),
                ("a/cgroup.procs", members),
            ]);
            let memory = Memory::of_container(root.path(), "0::/a");
            assert_eq!(memory.origin, Origin::Container);
            memory.usage()
        };
        assert_eq!(of(&format!("{own}\n")), Usage { used: 500, limit: 1000 });
        assert!(of(&format!("{own}\n1\n")).used > 1 << 20, "the resident set");
    }

    #[test]
    fn what_cannot_be_read_is_as_it_was() {
        let memory = Memory::new(Some(1000));
        assert_eq!(memory.take(Some(700)), Usage { used: 700, limit: 1000 });
        assert_eq!(memory.take(None), Usage { used: 700, limit: 1000 });
        assert_eq!(memory.take(None).used, 700);
        assert_eq!(memory.take(Some(300)).used, 300);
    }

    #[test]
    fn the_operators_word_goes_first() {
        let memory = Memory::new(Some(1 << 20));
        assert_eq!((memory.usage().limit, memory.origin), (1 << 20, Origin::Flag));
        assert_eq!(
            (Memory::new(Some(0)).usage().limit, Memory::new(Some(0)).origin),
            (0, Origin::Nobody)
        );
    }
}
