//! Where a `dev` keeps its state: a given directory, or a temporary one that goes with it.

use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process,
};

use lb_core::state_dir::{OF_CONTROL_PLANE, OF_PROXY, is_of_another};

use crate::exit::{Exit, Failure, root_cause};

/// A directory for all children.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    temporary: bool,
}

impl DataDir {
    /// Makes the directory if it is not there, for this user only.
    pub(super) fn open(given: Option<&Path>) -> Result<Self, Failure> {
        let (path, temporary) = match given {
            Some(path) => {
                let others = [OF_CONTROL_PLANE, OF_PROXY].concat();
                if is_of_another(path, OWN, &others) {
                    return Err(of_another(path));
                }
                (path.to_owned(), false)
            }
            None => {
                let name = format!("lbctl-dev-{}-{:08x}", process::id(), fastrand::u32(..));
                (env::temp_dir().join(name), true)
            }
        };
        let made = fs::DirBuilder::new().mode(0o700).recursive(!temporary).create(&path);
        let absolute = made.and_then(|()| path.canonicalize());
        absolute.map(|path| Self { path, temporary }).map_err(|error| cannot_make(&path, &error))
    }

    /// The absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.temporary {
            // What is left of it, the system clears away some day.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

/// What a `dev` that began there left behind.
const OWN: &[&str] = &["control-plane"];

fn of_another(path: &Path) -> Failure {
    Failure::new(
        Exit::BadConfiguration,
        format!(
            "the data directory {} is that of a control plane or of a proxy; 'lbctl dev' needs one of \
             its own: name it with --data-dir",
            path.display()
        ),
    )
}

fn cannot_make(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Exit::BadConfiguration,
        format!(
            "cannot use the data directory {}: {}; name one that you may write to with \
             --data-dir",
            path.display(),
            root_cause(error)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_is_removed_and_a_given_one_kept() {
        let temporary = DataDir::open(None).unwrap();
        let path = temporary.path().to_owned();
        fs::write(path.join("x"), "x").unwrap();
        drop(temporary);
        assert!(!path.exists());

        let parent = tempfile::tempdir().unwrap();
        let given = parent.path().join("a/b");
        drop(DataDir::open(Some(&given)).unwrap());
        assert!(given.is_dir());
    }

    #[test]
    fn the_directory_of_a_single_process_is_refused() {
        for file in ["control-plane.lock", "last-good"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(file), "").unwrap();
            let failure = DataDir::open(Some(directory.path())).unwrap_err();
            assert_eq!(failure.exit, Exit::BadConfiguration);
            assert!(failure.message.contains("needs one of its own"), "{failure}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left there");
            // As a former build may have left it.
            fs::create_dir(directory.path().join("control-plane")).unwrap();
            DataDir::open(Some(directory.path())).unwrap();
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = DataDir::open(Some(&file.path().join("x"))).unwrap_err();
        assert_eq!(failure.exit, Exit::BadConfiguration);
        assert!(failure.message.contains(file.path().to_str().unwrap()), "{failure}");
    }
}
