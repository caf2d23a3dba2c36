//! What benches that hold figures to a promise share.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Whether it is only asked if benches run, as `cargo test --benches` does.
pub(crate) fn is_only_asked() -> bool {
    std::env::args().any(|argument| argument == "--test" || argument == "--list")
}

/// The processor time that this thread needs: a busy machine lengthens it less than the
/// time on the wall.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(now).expect("a time since the thread began")
    };
    let start = now();
    work();
    now() - start
}
