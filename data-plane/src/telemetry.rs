//! Logs on stderr.

use tracing_subscriber::EnvFilter;

use crate::{args::LogFormat, error::RunError};

/// Starts logging, unless a caller did so already.
pub(crate) fn init(level: &str, format: LogFormat) -> Result<(), RunError> {
    let filter = EnvFilter::try_new(level).map_err(|error| {
        RunError::Usage(format!("--log-level {level:?} is not a level or a filter: {error}"))
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a logger is there.
    drop(match format {
        LogFormat::Text => logs.with_ansi(false).try_init(),
        LogFormat::Json => logs.json().try_init(),
    });
    Ok(())
}
