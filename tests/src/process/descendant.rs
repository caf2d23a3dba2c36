//! Processes that somebody else started, found by their parent.

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually::eventually;

/// The children of a process, by id and start time, so that an id that was given to
/// somebody else is not taken for the same process.
#[must_use]
pub fn children_of(parent: u32) -> Vec<Descendant> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id| {
            let stat = Stat::of(id)?;
            let words = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
            let command = String::from_utf8_lossy(&words).replace('\0', " ");
            (stat.parent == parent).then_some(Descendant { id, started: stat.started, command })
        })
        .collect()
}

/// A process that this one did not start itself.
#[derive(Clone, Debug)]
pub struct Descendant {
    /// Its process id.
    pub id: u32,
    started: u64,
    /// Its command line.
    pub command: String,
}

impl Descendant {
    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Stat::of(self.id).is_some_and(|stat| stat.started == self.started && !stat.dead)
    }

    /// Kills it and waits until it is gone.
    pub async fn kill(&self) {
        assert!(self.is_alive(), "{self:?} is not there");
        let pid = i32::try_from(self.id).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::KILL).expect("it can be killed");
        eventually("it is gone", async || if self.is_alive() { Err("alive") } else { Ok(()) })
            .await;
    }
}

struct Stat {
    parent: u32,
    started: u64,
    /// Waits for its parent to take notice, or does not even that.
    dead: bool,
}

impl Stat {
    fn of(id: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name is in parentheses and may contain anything.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let dead = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { parent, started, dead })
    }
}
