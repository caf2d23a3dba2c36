//! Errors as gRPC statuses. The message is the error's own: it says what, where, why
//! and what to do next.

use lb_core::model::{Invalid, Reason};
use tonic::{Code, Status};

use crate::{
    fleet::{ForgetError, IdTaken},
    registry::WriteError,
};

/// The status of a refused write.
pub(super) fn of_write(error: &WriteError) -> Status {
    let message = error.to_string();
    match error {
        WriteError::Invalid(_) | WriteError::Malformed(_) => Status::invalid_argument(message),
        WriteError::NotFound(_) => Status::not_found(message),
        WriteError::AlreadyExists(_) => Status::already_exists(message),
        WriteError::RevisionConflict(_) => Status::aborted(message),
        WriteError::Precondition(_) => Status::failed_precondition(message),
        WriteError::Random(_) | WriteError::Store(_) => Status::internal(message),
        WriteError::Stopping => Status::unavailable(message),
    }
}

/// The status of a bad value.
pub(super) fn of_invalid(invalid: &Invalid) -> Status {
    Status::invalid_argument(invalid.to_string())
}

/// The status of a proxy that cannot be forgotten.
pub(super) fn of_forget(error: &ForgetError) -> Status {
    match error {
        ForgetError::Unknown(_) => Status::not_found(error.to_string()),
        ForgetError::Connected(_) => Status::failed_precondition(error.to_string()),
    }
}

/// The status of a proxy id that is in use.
pub(super) fn of_taken(taken: &IdTaken) -> Status {
    Status::already_exists(taken.to_string())
}

/// Why a stream was refused, for people and programs.
pub(super) fn reason_of(status: &Status) -> Reason {
    let code = match status.code() {
        Code::AlreadyExists => "proxy_id_in_use",
        Code::FailedPrecondition => "no_common_version",
        _ => "invalid_hello",
    };
    Reason::new(code, status.message())
}
