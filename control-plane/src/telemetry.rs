//! Logs, on standard error: standard output is for the line that says where this
//! process listens.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "--log-level {level:?} is not understood ({source}); use error, warn, info, debug or trace"
)]
pub struct BadLogLevel {
    level: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Begins to log, unless the process logs already.
pub(crate) fn init(level: &str, format: LogFormat) -> Result<(), BadLogLevel> {
    let filter = EnvFilter::try_new(level)
        .map_err(|source| BadLogLevel { level: level.to_owned(), source })?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr);
    // An error means that somebody else has set logging up.
    match format {
        LogFormat::Text => logs.try_init().ok(),
        LogFormat::Json => logs.json().try_init().ok(),
    };
    Ok(())
}
