//! The proxy's own directory: its id, and the last good configuration.

use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use lb_core::{
    model::ProxyId,
    state_dir::{OF_CONTROL_PLANE, is_of_another, state_dir},
};
use rustix::fs::{FlockOperation, flock};

use crate::error::RunError;

/// An open data directory; nobody else can open it meanwhile.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Opens a directory, or makes it for this user alone.
    pub(crate) fn open(path: PathBuf) -> Result<Self, RunError> {
        let bad = |problem: String| RunError::DataDir { path: path.clone(), problem };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| match error
            .kind()
        {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => bad(
                "something else has its name, or a part of it. Name another with --data-dir, or \
                     move that away"
                    .into(),
            ),
            _ => bad(format!("{error}. Name another with --data-dir")),
        })?;
        if is_of_another(&path, &["lock"], OF_CONTROL_PLANE) {
            return Err(bad(
                "it is that of a control plane, and a proxy needs one of its own. Name \
                            it with --data-dir (LB_DATA_DIR is read by both)"
                    .into(),
            ));
        }
        let lock = File::create(path.join("lock")).map_err(|error| {
            bad(format!("{error}. Make it writable, or name another with --data-dir"))
        })?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                bad("another proxy is using it. Give this one its own with --data-dir or --id, or \
                     replace the other one with --takeover"
                    .into())
            } else {
                bad(format!("it cannot be locked: {error}"))
            }
        })?;
        remove_unfinished(&path);
        Ok(Self { path, lock })
    }

    /// A directory whose lock was handed over by the process that had it.
    pub(crate) fn inherited(path: PathBuf, lock: File) -> Self {
        Self { path, lock }
    }

    /// The lock, for whoever takes it over: it is held until the last copy is closed.
    pub(crate) fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// Where a proxy of this name keeps its things unless told otherwise.
    pub(crate) fn default_path(id: Option<&ProxyId>) -> Result<PathBuf, RunError> {
        Self::default_with(|name| env::var_os(name), id)
    }

    fn default_with(
        variable: impl Fn(&str) -> Option<OsString>,
        id: Option<&ProxyId>,
    ) -> Result<PathBuf, RunError> {
        let name = id.map_or("data-plane", ProxyId::as_str);
        state_dir(variable, name).ok_or_else(|| {
            RunError::Usage("no data directory: HOME is not set; name one with --data-dir".into())
        })
    }

    /// The id of this proxy: the one that is asked for, else the one that was kept,
    /// else a new one, which is kept from then on.
    pub(crate) fn id(&self, wanted: Option<ProxyId>) -> Result<ProxyId, RunError> {
        let file = self.path.join("id");
        if let Some(id) = wanted {
            return Ok(id);
        }
        let bad = |problem: String| RunError::DataDir { path: self.path.clone(), problem };
        match fs::read_to_string(&file) {
            Ok(text) => ProxyId::new(text.trim()).map_err(|invalid| {
                bad(format!("its file `id` holds no id ({invalid}); delete the file"))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let random = uuid::Uuid::new_v4().simple().to_string();
                let id = ProxyId::new(&format!("proxy-{}", &random[..8]))
                    .map_err(|invalid| RunError::Usage(invalid.to_string()))?;
                write_durably(&file, id.as_str().as_bytes())
                    .map_err(|error| bad(format!("its file `id` cannot be written: {error}")))?;
                Ok(id)
            }
            Err(error) => Err(bad(format!("its file `id` cannot be read: {error}"))),
        }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Leave to write into the directory, which ends when another process has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leave {
    /// Held while something is written.
    has_ended: Arc<Mutex<bool>>,
}

impl Leave {
    /// Nothing is written any more once this returns.
    pub(crate) fn end(&self) {
        *self.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Writes, one at a time; does nothing if another process has the directory.
    pub(crate) fn write(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *has_ended { Ok(()) } else { write() }
    }
}

/// Removes what processes that crashed had not written to its end. Nobody else writes here now.
fn remove_unfinished(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let unfinished = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "new"));
    for path in unfinished {
        // It is in nobody's way.
        fs::remove_file(path).ok();
    }
}

/// Replaces a file so that a crash leaves either the old or the new content, and two processes
/// that write it at once leave the content of one of them.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    Unfinished::write(path, content)?.finish()
}

/// New content of a file, on disk beside the old.
#[derive(Debug)]
pub(crate) struct Unfinished<'a> {
    path: &'a Path,
    temporary: PathBuf,
}

impl<'a> Unfinished<'a> {
    pub(crate) fn write(path: &'a Path, content: &[u8]) -> io::Result<Self> {
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(Self { path, temporary })
    }

    /// Puts it in place of the old.
    pub(crate) fn finish(self) -> io::Result<()> {
        fs::rename(&self.temporary, self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_id_is_made_once() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let first = DataDir::open(path.clone()).unwrap().id(None).unwrap();
        assert_eq!(DataDir::open(path.clone()).unwrap().id(None).unwrap(), first);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_first_directory_of_the_service_manager_is_taken() {
        let found = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).into())
            };
            DataDir::default_with(variable, Some(&ProxyId::new("edge-1").unwrap()))
        };
        let home = ("HOME", "/home/me");
        let service = ("STATE_DIRECTORY", "/var/lib/lb:/var/lib/lb-extra");
        assert_eq!(found(&[service, home]).unwrap(), Path::new("/var/lib/lb"));
        let path = found(&[("STATE_DIRECTORY", ""), home]).unwrap();
        assert_eq!(path, Path::new("/home/me/.local/state/lb/edge-1"));
        assert!(found(&[]).unwrap_err().to_string().contains("--data-dir"));
    }

    #[test]
    fn what_a_crash_left_unfinished_goes() {
        let temporary = tempfile::tempdir().unwrap();
        let (unfinished, kept) = ("last-good.7.new", "last-good");
        fs::write(temporary.path().join(unfinished), "half").unwrap();
        write_durably(&temporary.path().join(kept), b"whole").unwrap();
        drop(DataDir::open(temporary.path().into()).unwrap());
        assert!(!temporary.path().join(unfinished).exists());
        assert_eq!(fs::read(temporary.path().join(kept)).unwrap(), b"whole");
    }

    #[test]
    fn a_second_process_is_refused_with_the_remedy() {
        let temporary = tempfile::tempdir().unwrap();
        let _first = DataDir::open(temporary.path().into()).unwrap();
        let error = DataDir::open(temporary.path().into()).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("--data-dir"), "{error}");
    }
}
