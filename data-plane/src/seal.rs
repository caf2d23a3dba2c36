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

use crate::error::RunError;

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
    /// Reads the key from a file, or makes both. A disk that takes no file keeps nobody from
    /// serving: then the key is as long-lived as this process.
    pub(crate) fn open(path: &Path) -> Result<Self, RunError> {
        let bad = |problem: String| RunError::DataDir { path: path.to_owned(), problem };
        let key = match fs::read(path) {
            Ok(bytes) => <[u8; KEY_LEN]>::try_from(bytes.as_slice()).map_err(|_| {
                bad(format!(
                    "a key to seal with has {KEY_LEN} bytes, and this file has {}; delete the \
                     file to have another made",
                    bytes.len()
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match make(path) {
                Ok(key) => key,
                Err(error) => {
                    warn!(
                        path = %path.display(), %error,
                        "no key to seal with can be kept there (--seal-key): a restart without \
                         a control plane would know no sessions"
                    );
                    random().map_err(|error| bad(format!("no key can be made: {error}")))?
                }
            },
            Err(error) => {
                return Err(bad(format!(
                    "the key to seal with cannot be read: {error}. Name another file with \
                     --seal-key"
                )));
            }
        };
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o077);
        if mode != 0 {
            warn!(path = %path.display(), "the key to seal with can be read by others; chmod 600 it");
        }
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

/// Makes a key that only this user can read, and that is there whole or not at all.
fn make(path: &Path) -> io::Result<[u8; KEY_LEN]> {
    let key = random()?;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
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
        assert!(Seal::open(&path).unwrap_err().to_string().contains("delete the file"));
        assert!(Seal::open(&directory.path().join("no/such/place")).is_ok(), "but not kept");
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
