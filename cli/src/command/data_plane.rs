//! `data-plane`: the same as the executable `lb-data-plane`.

use std::process::ExitCode;

use super::plane_failed;
use crate::exit::Failure;

/// Runs a proxy to its end.
pub(super) fn run(args: lb_data_plane::args::Args) -> Result<ExitCode, Failure> {
    Ok(lb_data_plane::run(args).unwrap_or_else(|error| plane_failed(&error, error.exit_code())))
}
