//! Why a proxy could not start or go on.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use lb_core::listening::{cannot_listen, exit_code};

/// An error that ends the process, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Another process listens there.
    #[error(
        "{}; if it is this very proxy, replace it with --takeover",
        cannot_listen(.address, .cause, "--host", .flag)
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// The flag that chooses it.
        flag: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The same, where a process was to be taken over and there was none.
    #[error(
        "{}; --takeover found no process in {}: if a proxy is to be replaced, name its --data-dir",
        cannot_listen(.address, .cause, "--host", .flag), .searched.display()
    )]
    NothingToTakeOver {
        /// The address.
        address: SocketAddr,
        /// The flag that chooses it.
        flag: &'static str,
        /// What the system said.
        cause: io::Error,
        /// The data directory.
        searched: PathBuf,
    },
    /// The system refused the address.
    #[error("{}", cannot_listen(.address, .cause, if *.flag == "--port" { "--host" } else { .flag }, .flag))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that chooses it.
        flag: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}: {problem}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The process that runs could not be taken over.
    #[error(
        "cannot take over through {path}: {source}. The old process goes on; stop it and start this one without --takeover, or try again"
    )]
    TakeOver {
        /// Where it was asked.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A flag has a bad value.
    #[error("{0}")]
    Usage(String),
    /// The system would not start a thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl RunError {
    /// What it is if a process was looked for in this data directory, and there was none.
    pub(crate) fn after_a_search_in(self, searched: &Path) -> Self {
        match self {
            Self::AddressInUse { address, flag, cause } => {
                let searched = searched.to_owned();
                Self::NothingToTakeOver { address, flag, cause, searched }
            }
            other => other,
        }
    }

    /// 9: an address is in use; 78: bad configuration, a restart will not help, as for an
    /// address that this machine does not have;
    /// 1: anything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::AddressInUse { cause, .. }
            | Self::NothingToTakeOver { cause, .. }
            | Self::Listen { cause, .. } => exit_code(cause),
            Self::DataDir { .. } | Self::Usage(_) => 78,
            Self::TakeOver { .. } | Self::System(_) => 1,
        }
    }
}
