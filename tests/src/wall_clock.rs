//! A wall clock that jumps, for processes that are started with it.
//!
//! The library libfaketime stands between a process and the system's wall clock and leaves
//! the monotonic clock alone. It reads from a file by how much to lie, at each question.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;

/// What processes that have it take for the time of day. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct WallClock {
    library: PathBuf,
    directory: Arc<TempDir>,
}

impl WallClock {
    /// A clock that is right; nothing where libfaketime is not installed.
    #[must_use]
    pub fn new() -> Option<Self> {
        let library = library()?;
        let clock = Self { library, directory: Arc::new(tempfile::tempdir().ok()?) };
        clock.set(0);
        Some(clock)
    }

    /// Sets it this far from the true time.
    pub fn set(&self, days: i8) {
        // Renamed into place, so that nobody reads half of it.
        let next = self.directory.path().join("next");
        fs::write(&next, format!("{days:+}d\n")).expect("a temporary file can be written");
        fs::rename(next, self.file()).expect("a temporary file can be renamed");
    }

    /// What it shows, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(&self, days: i8) -> u64 {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        let now = true_time().as_millis();
        let now = u64::try_from(now).expect("the clock of this machine is sane");
        now.saturating_add_signed(i64::from(days) * DAY_MS)
    }

    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 5] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            // As it was called in older versions.
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }
}

/// Where Debian puts it, below the name of the architecture.
fn library() -> Option<PathBuf> {
    let architectures = fs::read_dir("/usr/lib").ok()?;
    let found =
        architectures.flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    found.into_iter().find(|path: &PathBuf| Path::exists(path))
}

#[expect(clippy::disallowed_methods, reason = "the true time, beside the one that is told")]
fn true_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
