//! One child process: started, listened to, ended.

use std::{
    env, io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child as Process, ChildStdin, Command},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use super::{
    printer::{Printer, Stream},
    role::{Listening, Role},
};

/// A running child.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    /// The child ends when this is closed, which the system does for us at the latest.
    _lifeline: Option<ChildStdin>,
    listening: Option<oneshot::Receiver<Listening>>,
}

/// What is heard of a child.
#[derive(Debug)]
pub(super) enum News {
    /// It accepts connections.
    Listens(Listening),
    /// It has ended; how, in words.
    Ended(String),
}

impl Child {
    /// Starts this executable in a role; what it says goes to the printer.
    pub(super) fn start(role: &Role, printer: &Printer) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(role.command_line())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // Settings for planes that the user runs elsewhere are not meant for these.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("LB_") && !name.starts_with("LB_LOG_") {
                command.env_remove(&*name);
            }
        }
        let mut process = command.spawn()?;
        let (heard, listening) = oneshot::channel();
        let heard = Arc::new(Mutex::new(Some(heard)));
        if let Some(stdout) = process.stdout.take() {
            let see = move |line: &str| {
                if let Some(listening) = Listening::parse(line)
                    && let Some(heard) = heard.lock().unwrap_or_else(PoisonError::into_inner).take()
                {
                    // Nobody waits for it any more when the child is being stopped.
                    drop(heard.send(listening));
                }
            };
            tokio::spawn(printer.clone().pass_on(role.name().to_owned(), Stream::Out, stdout, see));
        }
        if let Some(stderr) = process.stderr.take() {
            let name = role.name().to_owned();
            tokio::spawn(printer.clone().pass_on(name, Stream::Err, stderr, |_| {}));
        }
        Ok(Self { _lifeline: process.stdin.take(), process, listening: Some(listening) })
    }

    /// What happens next: it says that it listens, once, or it ends.
    pub(super) async fn next(&mut self) -> News {
        let Self { process, listening, .. } = self;
        tokio::select! {
            // In this order, since one may listen and then end, and not the other way round.
            biased;
            said = hear(listening) => News::Listens(said),
            ended = process.wait() => News::Ended(match ended {
                Ok(status) => describe(status),
                Err(error) => format!("cannot be watched any more ({error})"),
            }),
        }
    }

    /// The exit code with which it ended, if it has.
    pub(super) fn exit_code(&mut self) -> Option<i32> {
        self.process.try_wait().ok().flatten().and_then(|status| status.code())
    }

    /// Asks it to open its log file anew.
    pub(super) fn reopen_logs(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have ended this moment.
            kill_process(pid, signal).ok();
        }
    }

    /// Asks it to stop; when it has not after `patience`, or on `kill`, it is killed.
    pub(super) async fn stop(mut self, patience: Duration, kill: &CancellationToken) {
        self.signal(Signal::TERM);
        tokio::select! {
            _ = self.process.wait() => return,
            () = tokio::time::sleep(patience) => {}
            () = kill.cancelled() => {}
        }
        // As above.
        drop(self.process.kill().await);
    }
}

/// Never completes when there is nothing more to hear.
async fn hear(listening: &mut Option<oneshot::Receiver<Listening>>) -> Listening {
    let heard = match listening {
        Some(listening) => listening.await.ok(),
        None => None,
    };
    *listening = None;
    match heard {
        Some(said) => said,
        None => std::future::pending().await,
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_told_apart() {
        let deaths = [0, 78 << 8, 9].map(|raw| describe(ExitStatus::from_raw(raw)));
        assert_eq!(deaths, ["ended", "ended with exit code 78", "was killed by signal 9"]);
    }
}
