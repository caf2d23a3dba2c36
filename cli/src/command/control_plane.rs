//! `control-plane`: the same as the executable `lb-control-plane`.

use std::process::ExitCode;

use super::plane_failed;
use crate::exit::Failure;

/// Runs a control plane to its end.
pub(super) fn run(args: lb_control_plane::args::Args) -> Result<ExitCode, Failure> {
    Ok(lb_control_plane::run(args).unwrap_or_else(|error| plane_failed(&error, error.exit_code())))
}
