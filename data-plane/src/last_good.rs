//! The last good configuration on disk: a proxy serves from it at once, whether or
//! not a control plane answers.
//!
//! A file is a header line, the checksum (XXH3-128) of what follows, and the objects
//! as the control plane sent them. Two generations are kept; a file that is cut off
//! or altered is passed over with a warning. The keys of sessions are sealed in it
//! ([`crate::seal`]); one that cannot be unsealed is left out, and comes again from the control
//! plane. Beside the configuration it says how many proxies there were, which share what is
//! the fleet's.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use lb_core::{
    model::{Epoch, Key, Kind, Version},
    sync::{Object, Subscriber},
};
use lb_proto::{convert, v1 as pb};
use prost::Message as _;
use tokio::sync::watch;
use tracing::warn;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    data_dir::{Leave, Unfinished},
    keep::{Subject, keep},
    live::Config,
    seal::Seal,
    status::Status,
};

/// Names the format; another one is not read.
const HEADER: &[u8] = b"lb-last-good 1\n";

/// Stands before the kind of an object whose payload is sealed.
const SEALED: &str = "sealed/";

/// Bytes of the checksum.
const CHECKSUM: usize = 16;

/// Where the configuration is kept.
#[derive(Clone, Debug)]
pub(crate) struct LastGood {
    newest: PathBuf,
    former: PathBuf,
    /// Nothing that was found there says that the newest is worth nothing.
    is_readable: Arc<AtomicBool>,
    seal: Arc<Seal>,
    leave: Leave,
}

impl LastGood {
    pub(crate) fn new(directory: &Path, seal: Seal) -> Self {
        Self {
            seal: Arc::new(seal),
            newest: directory.join("last-good"),
            former: directory.join("last-good.1"),
            is_readable: Arc::new(AtomicBool::new(true)),
            leave: Leave::default(),
        }
    }

    /// The newest configuration that can be read.
    pub(crate) fn load(&self) -> Option<Kept> {
        [&self.newest, &self.former].into_iter().find_map(|path| match fs::read(path) {
            Ok(bytes) => decode(&bytes, &self.seal)
                .inspect_err(|problem| {
                    if *path == self.newest {
                        self.is_readable.store(false, Relaxed);
                    }
                    warn!(path = %path.display(), problem, "a kept configuration is passed over");
                })
                .ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "a kept configuration cannot be read");
                None
            }
        })
    }

    /// Keeps what was applied on disk, for as long as there are changes. Encoding thousands of
    /// objects takes longer than applying a change of one, so not at each of them.
    pub(crate) async fn keep(
        self,
        held: Arc<Mutex<Subscriber>>,
        status: Arc<Status>,
        applied: watch::Receiver<Arc<Config>>,
    ) {
        let subject = Subject {
            name: "the configuration",
            otherwise: "a restart without a control plane would serve an older one",
        };
        keep(subject, &self.newest, applied, |_| {
            let (last_good, held, proxies) =
                (self.clone(), Arc::clone(&held), status.proxies_told());
            move || last_good.save(&held, proxies)
        })
        .await;
    }

    /// Keeps what is held, if anything is, and what was kept before. `proxies` is the size of
    /// the fleet, if it was ever told.
    pub(crate) fn save(&self, held: &Mutex<Subscriber>, proxies: Option<u32>) -> io::Result<()> {
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let encoded = encode(&held, proxies, &self.seal)?;
        drop(held);
        encoded.map_or(Ok(()), |encoded| self.write(&encoded))
    }

    /// Leaves the files to the process that takes over: nothing is written once this returns.
    pub(crate) fn end(&self) {
        self.leave.end();
    }

    fn write(&self, encoded: &[u8]) -> io::Result<()> {
        self.leave.write(|| {
            let unfinished = Unfinished::write(&self.newest, encoded)?;
            // Only now: a disk that is full leaves both as they are. What could not be read does
            // not take the place of what can.
            if self.is_readable.swap(true, Relaxed) {
                match fs::rename(&self.newest, &self.former) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            unfinished.finish()
        })
    }
}

/// What was kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) held: Subscriber,
    /// The size of the fleet, as it was told last.
    pub(crate) proxies: Option<u32>,
}

/// The content of a file; `None` while nothing is held.
fn encode(
    subscriber: &Subscriber,
    proxies: Option<u32>,
    seal: &Seal,
) -> io::Result<Option<Vec<u8>>> {
    let Some(held) = subscriber.held() else { return Ok(None) };
    let version = held.version;
    let snapshot = pb::SnapshotBegin {
        version: Some(convert::sync::version_to_wire(version)),
        objects: subscriber.objects().len() as u64,
        proxies_told: proxies.unwrap_or_default(),
        ..Default::default()
    };
    let mut bytes = [HEADER, &[0; CHECKSUM]].concat();
    snapshot.encode_length_delimited(&mut bytes).map_err(io::Error::other)?;
    // One after the other: together they are twice the size of the file.
    for object in subscriber.objects().iter().chain(subscriber.fallbacks()) {
        let objects = vec![convert::sync::stored_to_wire(sealed(object, seal)?)];
        let chunk = pb::SnapshotChunk { nonce: 0, objects };
        chunk.encode(&mut bytes).map_err(io::Error::other)?;
    }
    let (head, body) = bytes.split_at_mut(HEADER.len() + CHECKSUM);
    head[HEADER.len()..].copy_from_slice(&xxh3_128(body).to_le_bytes());
    Ok(Some(bytes))
}

/// What of an object goes to disk.
fn sealed(object: &Object, seal: &Seal) -> io::Result<Object> {
    if *object.key.kind != *Kind::SessionKeys.name() {
        return Ok(object.clone());
    }
    Ok(Object {
        key: Key::new(&format!("{SEALED}{}", object.key.kind), &object.key.name),
        revision: object.revision,
        payload: seal.seal(&object.payload, object.key.name.as_bytes())?.into(),
    })
}

/// The object as it was sent; `None` if its payload cannot be unsealed.
fn unsealed(object: Object, seal: &Seal) -> Option<Object> {
    let Some(kind) = object.key.kind.strip_prefix(SEALED) else { return Some(object) };
    let Some(payload) = seal.unseal(&object.payload, object.key.name.as_bytes()) else {
        warn!(
            "the kept session keys cannot be unsealed, as if the file of the key to seal with were \
             another: sessions begin anew until a control plane answers"
        );
        return None;
    };
    let key = Key::new(kind, &object.key.name);
    Some(Object { key, payload: payload.into(), ..object })
}

fn decode(bytes: &[u8], seal: &Seal) -> Result<Kept, &'static str> {
    let rest = bytes.strip_prefix(HEADER).ok_or("it is of another format")?;
    let (checksum, mut body) = rest.split_first_chunk::<CHECKSUM>().ok_or("it is cut off")?;
    if xxh3_128(body).to_le_bytes() != *checksum {
        return Err("its checksum does not agree");
    }
    let begin = pb::SnapshotBegin::decode_length_delimited(&mut body)
        .map_err(|_| "its beginning cannot be read")?;
    let chunk = pb::SnapshotChunk::decode(body).map_err(|_| "its objects cannot be read")?;
    let version = begin.version.ok_or("it has no version")?;
    let version = Version {
        epoch: Epoch::from_slice(&version.epoch).ok_or("its epoch is malformed")?,
        revision: version.revision,
    };
    let mut objects: Vec<Object> =
        chunk.objects.into_iter().map(convert::sync::stored_from_wire).collect();
    let count = usize::try_from(begin.objects).map_err(|_| "it is too large")?;
    if objects.len() < count {
        return Err("objects are missing");
    }
    let fallbacks = objects.split_off(count);
    let unseal = |objects: Vec<Object>| {
        objects.into_iter().filter_map(|object| unsealed(object, seal)).collect()
    };
    let (objects, fallbacks) = (unseal(objects), unseal(fallbacks));
    let held = Subscriber::restored(convert::decode_object, version, objects, fallbacks);
    Ok(Kept { held, proxies: Some(begin.proxies_told).filter(|count| *count > 0) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_core::{
        affinity::{KeyId, KeyRing, SessionKey},
        model::{Pool, PoolName, Resource, SessionKeys},
        sync::{FullState, Nonce, ObjectSet, Outcome},
    };

    use super::*;

    const SECRET: [u8; SessionKey::LEN] = *b"0123456789abcdef0123456789abcdef";

    fn last_good(directory: &Path) -> LastGood {
        LastGood::new(directory, Seal::open(&directory.join("seal-key")).unwrap())
    }

    fn encoded(subscriber: &Subscriber, proxies: Option<u32>, last_good: &LastGood) -> Vec<u8> {
        encode(subscriber, proxies, &last_good.seal).unwrap().unwrap()
    }

    fn subscriber(revision: u64) -> Subscriber {
        let keys = SessionKeys {
            ring: KeyRing::first(SessionKey::new(KeyId(1), SECRET)),
            ttl_max: Duration::from_secs(60),
            salt: [9; SessionKeys::SALT_LEN],
        };
        let pool = Resource::Pool(Pool::new(PoolName::default_pool()));
        let object = |resource: Resource| {
            let payload = convert::encode(&resource);
            Object { key: resource.key(), revision, payload }
        };
        let objects: ObjectSet =
            [pool, Resource::SessionKeys(keys)].into_iter().map(object).collect();
        let mut subscriber = Subscriber::new(convert::decode_object);
        let outcome = subscriber.on_snapshot(FullState {
            nonce: Nonce(1),
            version: Version { epoch: Epoch([7; 16]), revision },
            digest: objects.digest(),
            objects: objects.iter().cloned().collect(),
            allow_empty: true,
            committed_unix_ms: 0,
        });
        assert!(matches!(outcome, Outcome::Apply(_)));
        subscriber
    }

    #[test]
    fn what_was_kept_is_held_again() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = last_good(directory.path());
        assert!(last_good.load().is_none());
        let kept = subscriber(3);
        last_good.write(&encoded(&kept, Some(8), &last_good)).unwrap();
        let Kept { held: loaded, proxies } = last_good.load().unwrap();
        assert_eq!((loaded.held(), proxies), (kept.held(), Some(8)));
        assert_eq!(loaded.snapshot(), kept.snapshot());
    }

    #[test]
    fn a_file_of_an_earlier_build_says_nothing_of_the_fleet() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = last_good(directory.path());
        let file = encoded(&subscriber(3), None, &last_good);
        assert_eq!(decode(&file, &last_good.seal).unwrap().proxies, None);
    }

    #[test]
    fn keys_are_sealed_and_are_left_out_when_that_cannot_be_undone() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = last_good(directory.path());
        let file = encoded(&subscriber(3), None, &last_good);
        assert!(!file.windows(8).any(|window| SECRET.starts_with(window)));
        let salt = [9; SessionKeys::SALT_LEN];
        assert!(!file.windows(salt.len()).any(|window| window == salt));
        let keys = decode(&file, &last_good.seal).unwrap().held.snapshot().session_keys().cloned();
        assert_eq!(keys.unwrap().ring.active().bytes(), &SECRET);
        let other = Seal::open(&directory.path().join("another")).unwrap();
        let without = decode(&file, &other).unwrap().held;
        assert_eq!(without.snapshot().session_keys(), None);
        assert_eq!(without.snapshot().pools().len(), 1, "all else is there");
    }

    #[test]
    fn a_damaged_file_is_passed_over_for_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = last_good(directory.path());
        last_good.write(&encoded(&subscriber(3), Some(8), &last_good)).unwrap();
        last_good.write(&encoded(&subscriber(4), Some(8), &last_good)).unwrap();
        let intact = fs::read(&last_good.newest).unwrap();
        for cut in [0, 5, HEADER.len(), intact.len() / 2, intact.len() - 1] {
            fs::write(&last_good.newest, &intact[..cut]).unwrap();
            assert_eq!(last_good.load().unwrap().held.held().unwrap().version.revision, 3);
        }
        let mut altered = intact.clone();
        *altered.last_mut().unwrap() ^= 1;
        fs::write(&last_good.newest, &altered).unwrap();
        assert_eq!(last_good.load().unwrap().held.held().unwrap().version.revision, 3);
        fs::write(&last_good.newest, &intact).unwrap();
        assert_eq!(last_good.load().unwrap().held.held().unwrap().version.revision, 4);
    }
    #[test]
    fn what_can_be_read_is_not_given_up_for_what_cannot_or_for_what_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let first = last_good(directory.path());
        first.write(&encoded(&subscriber(3), Some(8), &first)).unwrap();
        first.write(&encoded(&subscriber(4), Some(8), &first)).unwrap();
        let revision = || {
            let kept = last_good(directory.path()).load().unwrap();
            kept.held.held().unwrap().version.revision
        };
        // The directory takes no file of that name, as a full one takes none.
        let in_the_way = first.newest.with_extension(format!("{}.new", std::process::id()));
        fs::create_dir(&in_the_way).unwrap();
        first.write(&encoded(&subscriber(5), Some(8), &first)).unwrap_err();
        assert_eq!(revision(), 4);
        fs::remove_dir(&in_the_way).unwrap();

        fs::write(&first.newest, "damaged").unwrap();
        let next = last_good(directory.path());
        assert_eq!(next.load().unwrap().held.held().unwrap().version.revision, 3);
        next.write(&encoded(&subscriber(5), Some(8), &next)).unwrap();
        assert_eq!(revision(), 5);
        fs::write(&next.newest, "damaged again").unwrap();
        assert_eq!(revision(), 3);
    }
}
