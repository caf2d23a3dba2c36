//! The directory that holds the store, and the lock that keeps a second process out.
//!
//! Two control planes on one store would each believe that they alone count
//! revisions. The lock is the kernel's (`flock`), so it ends with the process however
//! that ends, and a file that was left behind means nothing.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use lb_core::state_dir::{OF_CONTROL_PLANE, OF_PROXY, is_of_another, state_dir};
use rustix::fs::{FlockOperation, flock};

/// A data directory that belongs to this process until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Neither given nor to be derived.
    #[error(
        "no data directory: none of STATE_DIRECTORY, XDG_STATE_HOME and HOME is set; \
         name one with --data-dir DIR"
    )]
    Unknown,
    /// It cannot be made or written.
    #[error(
        "cannot use the data directory {}: {source}; make it writable for this user, or name \
         another one with --data-dir DIR",
        path.display()
    )]
    Unusable {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else has its name.
    #[error(
        "cannot use the data directory {}: something else has its name, or a part of it; name \
         another one with --data-dir DIR, or move that away",
        path.display()
    )]
    NoDirectory {
        /// Where.
        path: PathBuf,
    },
    /// A proxy keeps its things there.
    #[error(
        "the data directory {} is that of a proxy; a control plane needs one of its own: name it \
         with --data-dir DIR (LB_DATA_DIR is read by both)",
        path.display()
    )]
    OfProxy {
        /// Where.
        path: PathBuf,
    },
    /// Another process uses it.
    #[error(
        "the data directory {} is used by another control plane; stop that one first, or name \
         another directory with --data-dir DIR",
        path.display()
    )]
    Locked {
        /// Where.
        path: PathBuf,
    },
}

impl DataDir {
    /// Opens a directory, making it with mode 0700 when it is not there, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| match error
            .kind()
        {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                DataDirError::NoDirectory { path: path.to_owned() }
            }
            _ => unusable(error),
        })?;
        if is_of_another(path, OF_CONTROL_PLANE, OF_PROXY) {
            return Err(DataDirError::OfProxy { path: path.to_owned() });
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("control-plane.lock"))
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(DataDirError::Locked { path: path.to_owned() })
            }
            Err(error) => Err(unusable(error.into())),
        }
    }

    /// The file of the store.
    #[must_use]
    pub(crate) fn store_path(&self) -> PathBuf {
        self.path.join("control-plane.redb")
    }
}

/// The directory to use when none is named ([`state_dir`]).
pub(crate) fn default_path(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, DataDirError> {
    state_dir(variable, "control-plane").ok_or(DataDirError::Unknown)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn default_with(variables: &[(&str, &str)]) -> Result<PathBuf, DataDirError> {
        default_path(|name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn the_directory_of_the_service_manager_comes_first() {
        let home = ("HOME", "/home/me");
        assert_eq!(
            default_with(&[("STATE_DIRECTORY", "/var/lib/lb:/x"), home]).unwrap(),
            Path::new("/var/lib/lb")
        );
        assert_eq!(
            default_with(&[("XDG_STATE_HOME", "/state"), home]).unwrap(),
            Path::new("/state/lb/control-plane")
        );
        assert_eq!(
            default_with(&[("STATE_DIRECTORY", ""), home]).unwrap(),
            Path::new("/home/me/.local/state/lb/control-plane")
        );
        assert!(default_with(&[]).unwrap_err().to_string().contains("--data-dir"));
    }

    #[test]
    fn a_second_user_of_a_directory_is_refused_by_name() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let refusal = DataDir::open(&path).unwrap_err().to_string();
        assert!(refusal.contains(path.to_str().unwrap()) && refusal.contains("--data-dir"));
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn the_directory_of_a_proxy_is_refused_unless_it_was_shared_before() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("last-good"), "").unwrap();
        let refusal = DataDir::open(directory.path()).unwrap_err().to_string();
        assert!(refusal.contains("is that of a proxy"), "{refusal}");
        assert!(!directory.path().join("control-plane.lock").exists(), "nothing is left there");
        std::fs::write(directory.path().join("control-plane.lock"), "").unwrap();
        DataDir::open(directory.path()).unwrap();
    }

    #[test]
    fn an_unusable_directory_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refusal = DataDir::open(&file.join("below")).unwrap_err().to_string();
        assert!(refusal.contains("file/below"), "{refusal}");
    }
}
