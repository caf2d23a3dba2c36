//! The keys that sign sessions: when the first is made, and how one follows another.
//!
//! They come to be with the first pool that has sessions, in the same revision, so that no
//! proxy ever has such a pool without them.

use std::time::Duration;

use lb_core::{
    affinity::{KeyId, KeyRing, RingKey, Role, SessionKey},
    model::{Key, Kind, Pool, PoolName, Reason, Resource, Route, SessionKeys},
    routing::{Clash, clashes},
};

use super::{Catalog, WriteError};

/// The next step of a rotation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyStep {
    /// Make a key, which is believed and signs nothing yet.
    Announce,
    /// Let the key that was announced sign.
    Activate,
    /// Drop keys of which no session is left.
    Prune,
}

/// One request to change the keys.
#[derive(Clone, Debug)]
pub struct KeyRequest {
    /// What to do.
    pub step: KeyStep,
    /// At which the keys were last changed; 0 does not care.
    pub expected_revision: u64,
    /// As of any write: [`super::WriteRequest::idempotency`].
    pub idempotency: Option<(String, u128)>,
}

impl From<KeyStep> for KeyRequest {
    fn from(step: KeyStep) -> Self {
        Self { step, expected_revision: 0, idempotency: None }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeysWritten {
    /// At which the keys were last changed by then.
    pub revision: u64,
    /// It was made before, and nothing was done this time.
    pub repeated: bool,
}

/// The keys that must be stored with a change of pools, if they must: the first ones, or those
/// that know of a longer TTL.
pub(super) fn needed(
    catalog: &Catalog,
    upserts: &[Resource],
    deletes: &[Key],
    now_s: u64,
) -> Result<Option<SessionKeys>, WriteError> {
    let put = upserts.iter().filter_map(|resource| match resource {
        Resource::Pool(pool) => Some(pool),
        _ => None,
    });
    let Some(ttl_max) = put.clone().filter_map(ttl).max() else { return Ok(None) };
    let is_put = |name: &PoolName| put.clone().any(|pool| pool.name == *name);
    let goes = |name: &PoolName| deletes.contains(&Key::new("pool", name.as_str()));
    let stays = catalog.pools().values().map(|stored| &stored.value);
    let others = stays.filter(|pool| !is_put(&pool.name) && !goes(&pool.name)).filter_map(ttl);
    let ttl_max = others.fold(ttl_max, Duration::max);
    match catalog.session_keys() {
        Some(stored) if stored.value.ttl_max >= ttl_max => Ok(None),
        Some(stored) => Ok(Some(renewed(stored.value.ring.clone(), ttl_max)?)),
        None => Ok(Some(renewed(KeyRing::first(new_key(None, now_s)?), ttl_max)?)),
    }
}

/// The keys after a step; nothing if there is nothing to do.
pub(super) fn after(
    catalog: &Catalog,
    step: KeyStep,
    now_s: u64,
) -> Result<Option<SessionKeys>, WriteError> {
    let Some(stored) = catalog.session_keys() else {
        return Err(WriteError::Precondition(
            "no pool has ever had sessions, so there is no key to rotate; lbctl set-pool NAME \
             --sticky cookie turns them on"
                .to_owned(),
        ));
    };
    let SessionKeys { ring, ttl_max, .. } = &stored.value;
    let pruned = ring.prune(now_s);
    let (next, ttl_max) = match step {
        KeyStep::Announce if ring.next().is_some() => return Ok(None),
        KeyStep::Announce => (pruned.announce(new_key(Some(ring), now_s)?)?, *ttl_max),
        KeyStep::Activate if ring.next().is_none() => return Ok(None),
        KeyStep::Activate => {
            let pools = catalog.pools().values();
            let now = pools.filter_map(|stored| ttl(&stored.value)).max();
            (pruned.activate(now_s, *ttl_max), now.unwrap_or(*ttl_max))
        }
        KeyStep::Prune => (pruned, *ttl_max),
    };
    if next == *ring {
        return Ok(None);
    }
    renewed(next, ttl_max).map(Some)
}

/// Why a write at this revision of the keys is refused.
pub(super) fn changed_since(expected: u64, actual: u64) -> WriteError {
    WriteError::RevisionConflict(format!(
        "the session keys are at revision {actual}, not {expected}: they were changed since they \
         were read; read them again, and see whether another key is still wanted"
    ))
}

/// What is worth telling about a change of the keys.
pub(super) fn news(before: Option<&SessionKeys>, after: &SessionKeys) -> Option<Reason> {
    let (id, next) = (after.ring.active().id(), after.ring.next().map(SessionKey::id));
    let Some(before) = before else {
        return Some(Reason::new("made", format!("key {id} signs sessions from now on")));
    };
    let is_new = |key: &RingKey| !before.ring.keys().iter().any(|k| k.key.id() == key.key.id());
    if before.ring.active().id() != id {
        let message = format!(
            "key {id} signs sessions from now on; {} is believed until its last session has ended",
            before.ring.active().id()
        );
        Some(Reason::new("activated", message))
    } else if let Some(next) = next.filter(|_| after.ring.keys().iter().any(is_new)) {
        let message = format!("key {next} is announced, and signs once every proxy knows it");
        Some(Reason::new("announced", message))
    } else if after.ring.keys().len() < before.ring.keys().len() {
        let gone = before
            .ring
            .keys()
            .iter()
            .filter(|held| !after.ring.keys().iter().any(|key| key.key.id() == held.key.id()));
        let gone: Vec<String> = gone.map(|held| held.key.id().to_string()).collect();
        let message = format!("no session of key {} is left", gone.join(", "));
        Some(Reason::new("pruned", message))
    } else {
        None
    }
}

/// Pools that take a session's cookie from each other, as far as a change has to do with it.
pub(super) fn warnings(catalog: &Catalog, upserts: &[Resource], deletes: &[Key]) -> Vec<String> {
    let put = |kind, name: &str| {
        upserts.iter().find(|resource| resource.kind() == kind && resource.name() == name)
    };
    let stays = |route: &&Route| {
        put(Kind::Route, route.name.as_str()).is_none()
            && !deletes.contains(&Key::new("route", route.name.as_str()))
    };
    let stored = catalog.routes().values().map(|stored| &stored.value).filter(stays);
    let new = upserts.iter().filter_map(|resource| match resource {
        Resource::Route(route) => Some(route),
        _ => None,
    });
    let is_pool = |name: &PoolName| put(Kind::Pool, name.as_str()).is_some();
    if new.clone().next().is_none() && !upserts.iter().any(|r| r.kind() == Kind::Pool) {
        return Vec::new();
    }
    let routes: Vec<&Route> = stored.chain(new).collect();
    let affinity = |name: &PoolName| match put(Kind::Pool, name.as_str()) {
        Some(Resource::Pool(pool)) => Some(&pool.affinity),
        _ => catalog.pools().get(name).map(|stored| &stored.value.affinity),
    };
    let news = |route: &Route| {
        put(Kind::Route, route.name.as_str()).is_some() || route.pools.names().any(is_pool)
    };
    let told = |Clash { first, second, cookie, host }: Clash| {
        format!(
            "pools {first} and {second} are both reached on {host} and have the same session \
             cookie, {cookie}, so that they take it from each other's clients; give one of them \
             another with lbctl set-pool {second} --session-cookie NAME, or a --session-path"
        )
    };
    clashes(&routes, news, affinity).into_iter().map(told).collect()
}

/// Whether a retired key is not believed any more.
pub(crate) fn is_over(held: &RingKey, now_s: u64) -> bool {
    matches!(held.role, Role::Retired { honoured_until_s } if now_s > honoured_until_s)
}

fn ttl(pool: &Pool) -> Option<Duration> {
    pool.affinity.cookie().map(|policy| policy.ttl)
}

fn renewed(ring: KeyRing, ttl_max: Duration) -> Result<SessionKeys, WriteError> {
    Ok(SessionKeys { ring, ttl_max, salt: random()? })
}

fn new_key(ring: Option<&KeyRing>, now_s: u64) -> Result<SessionKey, WriteError> {
    let taken: Vec<KeyId> =
        ring.iter().flat_map(|ring| ring.keys()).map(|held| held.key.id()).collect();
    loop {
        let id = KeyId(u32::from_be_bytes(random()?));
        if !taken.contains(&id) {
            return Ok(SessionKey::new(id, random()?).made_at(now_s));
        }
    }
}

/// Bytes that nobody can guess.
fn random<const LEN: usize>() -> Result<[u8; LEN], WriteError> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(|error| WriteError::Random(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use lb_core::model::{Affinity, CookieAffinity};

    use super::*;

    fn pool(name: &str, ttl_s: u64) -> Resource {
        let ttl = Duration::from_secs(ttl_s);
        let affinity = Affinity::Cookie(CookieAffinity { ttl, ..CookieAffinity::default() });
        Resource::Pool(Pool { affinity, ..Pool::new(PoolName::new(name).unwrap()) })
    }

    fn with_keys(catalog: &mut Catalog, keys: Option<SessionKeys>) -> SessionKeys {
        let keys = keys.expect("keys are to be stored");
        catalog.put(Resource::SessionKeys(keys.clone()), 1);
        keys
    }

    fn codes(before: Option<&SessionKeys>, after: &SessionKeys) -> Option<String> {
        news(before, after).map(|reason| reason.code)
    }

    #[test]
    fn the_first_key_comes_with_the_first_pool_that_has_sessions() {
        let mut catalog = Catalog::default();
        let plain = Resource::Pool(Pool::new(PoolName::default_pool()));
        assert_eq!(needed(&catalog, &[plain], &[], 5).unwrap(), None);
        assert!(matches!(after(&catalog, KeyStep::Announce, 5), Err(WriteError::Precondition(_))));
        let first = needed(&catalog, &[pool("a", 60)], &[], 5).unwrap();
        let first = with_keys(&mut catalog, first);
        assert_eq!((first.ring.keys().len(), first.ring.active().made_s()), (1, 5));
        assert_eq!(codes(None, &first).as_deref(), Some("made"));
        assert_eq!(needed(&catalog, &[pool("b", 60)], &[], 6).unwrap(), None, "they are there");
        let longer = needed(&catalog, &[pool("b", 90)], &[], 6).unwrap().unwrap();
        assert_eq!((longer.ttl_max.as_secs(), &longer.ring), (90, &first.ring));
        assert_ne!(longer.salt, first.salt);
        assert_eq!(codes(Some(&first), &longer), None);
    }

    #[test]
    fn a_rotation_goes_step_by_step_and_ends_when_the_last_session_has() {
        let mut catalog = Catalog::default();
        let first = needed(&catalog, &[pool("a", 60)], &[], 0).unwrap();
        let first = with_keys(&mut catalog, first);
        assert_eq!(after(&catalog, KeyStep::Activate, 1).unwrap(), None);
        let announced = after(&catalog, KeyStep::Announce, 10).unwrap();
        let announced = with_keys(&mut catalog, announced);
        assert_eq!(announced.ring.active(), first.ring.active());
        assert_eq!(codes(Some(&first), &announced).as_deref(), Some("announced"));
        assert_eq!(after(&catalog, KeyStep::Announce, 11).unwrap(), None, "one at a time");
        // The pool's TTL is shorter now, but what was signed before lives on.
        catalog.put(pool("a", 5), 2);
        let activated = after(&catalog, KeyStep::Activate, 20).unwrap();
        let activated = with_keys(&mut catalog, activated);
        assert_eq!(Some(activated.ring.active()), announced.ring.next());
        assert_eq!(codes(Some(&announced), &activated).as_deref(), Some("activated"));
        assert_eq!(activated.ttl_max.as_secs(), 5);
        assert_eq!(after(&catalog, KeyStep::Prune, 20 + 60 + 30).unwrap(), None);
        let pruned = after(&catalog, KeyStep::Prune, 20 + 60 + 31).unwrap().unwrap();
        assert_eq!(pruned.ring.keys().len(), 1);
        assert_eq!(codes(Some(&activated), &pruned).as_deref(), Some("pruned"));
    }
}
