//! Seals what is secret before it goes to disk: the keys of sessions, without which a proxy
//! that was restarted would know nobody until a control plane answers.
//!
//! XChaCha20-Poly1305 with a key of this proxy's own, which is in a file of its own. So whoever
//! gets the configuration that is kept (a backup, a bundle for support) has no key of a
//! session; whoever also gets the file has. `--seal-key` puts it elsewhere, say into memory or
//! where a manager of secrets mounts it.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead as _, KeyInit as _, Payload},
};
use tracing::warn;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;

/// A key that seals.
pub(crate) struct Seal(XChaCha20Poly1305);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(secret)")
    }
}

impl Seal {
    /// Reads the key from a file, or makes both. A file that is of no use, or a disk that takes
    /// none, keeps nobody from serving: then the key is as long-lived as this process, the file
    /// is left as it is, and what it means is told.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let key = match kept(path) {
            Ok(key) => {
                let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
                if mode & 0o077 != 0 {
                    let path = path.display();
                    warn!(%path, "the key to seal with can be read by others; chmod 600 it");
                }
                key
            }
            Err(problem) => {
                warn!(
                    path = %path.display(),
                    "no key to seal with: {problem}. Clients are served all the same; only, a \
                     restart while no control plane can be reached would know no sessions"
                );
                random()?
            }
        };
        Ok(Self::of(key))
    }

    fn of(key: [u8; KEY_LEN]) -> Self {
        Self(XChaCha20Poly1305::new(&key.into()))
    }

    /// Seals a secret. It can be opened again with the same `purpose` only.
    pub(crate) fn seal(&self, secret: &[u8], purpose: &[u8]) -> io::Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let payload = Payload { msg: secret, aad: purpose };
        let sealed = self.0.encrypt(&nonce.into(), payload).map_err(io::Error::other)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed; `None` for anything else.
    pub(crate) fn unseal(&self, sealed: &[u8], purpose: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        self.0.decrypt(&(*nonce).into(), Payload { msg: sealed, aad: purpose }).ok()
    }
}

/// The key of a file, which is made if it is not there; else what is the matter, and what to do.
fn kept(path: &Path) -> Result<[u8; KEY_LEN], String> {
    match fs::read(path) {
        Ok(bytes) => bytes.as_slice().try_into().map_err(|_| {
            format!(
                "it has {KEY_LEN} bytes, and this file has {}; delete the file to have another \
                 made at the next start, or name another one with --seal-key",
                bytes.len()
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)
            .map_err(|error| format!("none can be kept there: {error}; name another --seal-key")),
        Err(error) => Err(format!("it cannot be read: {error}; name another file with --seal-key")),
    }
}

/// Makes a key that only this user can read, and that is there whole or not at all.
fn make(path: &Path) -> io::Result<[u8; KEY_LEN]> {
    let key = random()?;
    // Of this attempt alone: in containers every process has the same number.
    let suffix = u128::from_be_bytes(random()?);
    let temporary = path.with_extension(format!("{suffix:032x}.new"));
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
    if let Err(error) = file.write_all(&key).and_then(|()| file.sync_all()) {
        // What is half there would only take room.
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    // Another proxy that shares the file may be making it as well: one of both does.
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return fs::read(path)?.as_slice().try_into().map_err(io::Error::other);
        }
        linked => linked?,
    }
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(key)
}

fn random<const LEN: usize>() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_this_user_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal-key");
        let sealed = Seal::open(&path).unwrap().seal(b"secret", b"p").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Seal::open(&path).unwrap();
        assert_eq!(again.unseal(&sealed, b"p").unwrap(), b"secret");
        assert_ne!(again.seal(b"secret", b"p").unwrap(), sealed);
        fs::write(&path, b"short").unwrap();
        assert!(kept(&path).unwrap_err().contains("delete the file"));
        assert!(Seal::open(&path).unwrap().unseal(&sealed, b"p").is_none());
        assert_eq!(fs::read(&path).unwrap(), b"short", "whatever it is, somebody has put it there");
        assert!(Seal::open(directory.path()).is_ok(), "not a file at all");
        assert!(Seal::open(&directory.path().join("no/such/place")).is_ok(), "but not kept");
    }

    #[test]
    fn of_many_that_make_the_key_at_once_all_have_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal-key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let open = || scope.spawn(|| kept(&path).unwrap());
            let all: Vec<_> = (0..8).map(|_| open()).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn what_was_altered_or_meant_for_something_else_is_not_opened() {
        let seal = Seal::of([7; KEY_LEN]);
        let sealed = seal.seal(b"0123456789", b"p").unwrap();
        assert!(!sealed.windows(4).any(|window| window == b"0123"));
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(seal.unseal(&altered, b"p"), None);
            assert_eq!(seal.unseal(&sealed[..at], b"p"), None);
        }
        assert_eq!(seal.unseal(&sealed, b"q"), None);
        assert_eq!(Seal::of([8; KEY_LEN]).unseal(&sealed, b"p"), None);
    }
}
