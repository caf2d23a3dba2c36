//! Being asked to stop: SIGINT, SIGTERM, and the end of standard input for
//! processes that must not outlive their parent.

use std::io::{self, IsTerminal as _, Read as _};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Both signals that ask for an end.
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Catches them from now on; must be called within a runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// SIGHUP, which asks for log files to be opened anew, or tells that the terminal is gone.
#[derive(Debug)]
pub(crate) struct HangupSignals {
    hangup: Signal,
    had_terminal: bool,
}

/// What a SIGHUP meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hangup {
    /// Somebody asks for log files to be opened anew.
    Reopen,
    /// Nobody is left to be served.
    TerminalGone,
}

impl HangupSignals {
    /// Catches it from now on; must be called within a runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        let had_terminal = io::stdin().is_terminal();
        Ok(Self { hangup: signal(SignalKind::hangup())?, had_terminal })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Hangup {
        self.hangup.recv().await;
        // A terminal that was hung up is none any more.
        if self.had_terminal && !io::stdin().is_terminal() {
            Hangup::TerminalGone
        } else {
            Hangup::Reopen
        }
    }
}

/// Completes when standard input ends: whoever holds the other end of the pipe is gone,
/// however it ended. Never, when `enabled` is false.
pub(crate) async fn parent_gone(enabled: bool) {
    if !enabled {
        return std::future::pending().await;
    }
    let (ended, end) = oneshot::channel::<()>();
    // A thread, since reading standard input cannot be cancelled; it dies with the process.
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        let mut input = io::stdin().lock();
        loop {
            match input.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                Ok(_) | Err(_) => {}
            }
        }
        drop(ended);
    });
    // Both a message and a dropped sender mean the end.
    drop(end.await);
}
