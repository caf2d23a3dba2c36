//! How commands end: an exit code that scripts can rely on, and a message that
//! tells people what happened, where, why, and what to do next.

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use lb_core::model::Invalid;
use tonic::{Code, Status};

/// The kinds of endings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Success = 0,
    /// Failed at run time.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No control plane answers.
    Unreachable = 3,
    /// The control plane or a proxy refused the value.
    Rejected = 4,
    /// Somebody else changed the object meanwhile, or it exists already.
    Conflict = 5,
    /// Accepted, but not true everywhere in time.
    TimedOut = 6,
    /// No such object.
    NotFound = 7,
    /// Not allowed.
    NotPermitted = 8,
    /// An address to listen on is taken.
    AddressInUse = 9,
    /// A setting is bad; starting again does not help (`EX_CONFIG`).
    BadConfiguration = 78,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// For scripts.
    pub exit: Exit,
    /// For people; empty when there is nobody left to read it.
    pub message: String,
}

impl Failure {
    /// A failure with its message, which has no full stop and may have several lines.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// Translates what the control plane at `server` answered.
    #[must_use]
    pub fn from_status(status: &Status, server: &str) -> Self {
        let message = status.message();
        match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
                Self::new(Exit::Rejected, message)
            }
            Code::Aborted | Code::AlreadyExists => Self::new(Exit::Conflict, message),
            Code::NotFound => Self::new(Exit::NotFound, message),
            Code::PermissionDenied | Code::Unauthenticated => {
                Self::new(Exit::NotPermitted, message)
            }
            Code::DeadlineExceeded => Self::new(
                Exit::TimedOut,
                format!(
                    "the control plane at {server} did not answer in time: it may be stopped or \
                     overloaded; look at its process, or allow it more time with --timeout"
                ),
            ),
            Code::Unavailable | Code::Cancelled => unreachable(server, &reason_of(status)),
            Code::Unimplemented => Self::new(
                Exit::Failed,
                format!(
                    "what answers at {server} does not know this command: it is older than this \
                     lbctl ({}), or no control plane; compare with 'lbctl --version'",
                    env!("CARGO_PKG_VERSION")
                ),
            ),
            _ if speaks_something_else(status) => Self::new(
                Exit::Unreachable,
                format!(
                    "what answers at {server} does not speak gRPC ({}); name the control plane's \
                     gRPC address with --server (its default port is 9400; 9401 is for HTTP)",
                    reason_of(status)
                ),
            ),
            code => Self::new(
                Exit::Failed,
                format!(
                    "the control plane at {server} failed: {} ({code:?}); its log says more",
                    reason_of(status)
                ),
            ),
        }
    }
}

/// No control plane answers at `server`.
#[must_use]
pub fn unreachable(server: &str, why: &str) -> Failure {
    Failure::new(
        Exit::Unreachable,
        format!(
            "cannot reach the control plane at {server}: {why}; start one with \
             'lbctl control-plane', or name another one with --server URL or LBCTL_SERVER"
        ),
    )
}

/// The innermost cause of an error, without the number of the system's error.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

/// Prints a failure and gives its exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    if !failure.message.is_empty() {
        // Nothing is left to be done when stderr is gone, too.
        drop(writeln!(io::stderr(), "error: {}", failure.message));
    }
    failure.exit.into()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    /// Of writing to stdout: a reader that has seen enough is no failure.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Success, "");
        }
        Self::new(Exit::Failed, format!("cannot write the answer: {error}"))
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::new(Exit::Rejected, invalid.message)
    }
}

fn reason_of(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => root_cause(source),
        None => status.message().to_owned(),
    }
}

/// Why the connection broke, if that is what a status tells; it may as well have been to something
/// that does not speak gRPC.
pub(crate) fn connection_failure(status: &Status) -> Option<String> {
    let is_broken = matches!(status.code(), Code::Unknown | Code::Internal)
        && std::error::Error::source(status).is_some();
    is_broken.then(|| reason_of(status))
}

/// An HTTP/1 server, for example, breaks the connection off or answers in its own way.
fn speaks_something_else(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Internal)
        && (std::error::Error::source(status).is_some()
            || status.message().contains("grpc-status")
            || status.message().contains("content-type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_exit_code() {
        for (code, exit) in [
            (Code::InvalidArgument, Exit::Rejected),
            (Code::FailedPrecondition, Exit::Rejected),
            (Code::Aborted, Exit::Conflict),
            (Code::AlreadyExists, Exit::Conflict),
            (Code::NotFound, Exit::NotFound),
            (Code::PermissionDenied, Exit::NotPermitted),
            (Code::Unavailable, Exit::Unreachable),
            (Code::DeadlineExceeded, Exit::TimedOut),
            (Code::Internal, Exit::Failed),
        ] {
            assert_eq!(Failure::from_status(&Status::new(code, "why"), "http://a").exit, exit);
        }
    }

    #[test]
    fn a_control_plane_that_is_away_is_named_with_the_way_out() {
        let message = unreachable("http://127.0.0.1:9400", "connection refused").message;
        insta::assert_snapshot!(message, @"cannot reach the control plane at http://127.0.0.1:9400: connection refused; start one with 'lbctl control-plane', or name another one with --server URL or LBCTL_SERVER");
    }

    #[test]
    fn what_the_control_plane_explains_is_passed_on_unchanged() {
        let status = Status::not_found("there is no backend \"b9\"");
        assert_eq!(Failure::from_status(&status, "x").message, "there is no backend \"b9\"");
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, &*failure.message), (Exit::Success, ""));
    }

    #[test]
    fn causes_are_told_without_numbers() {
        let error = io::Error::from_raw_os_error(111);
        assert_eq!(root_cause(&error), "connection refused");
    }
}
