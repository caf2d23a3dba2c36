//! The keys that sign sessions, on their way to proxies and into the store.

use std::{fmt, time::Duration};

use lb_core::{
    affinity::{KeyId, KeyRing, RingKey, Role, SessionKey},
    model::{Invalid, SessionKeys},
};

use crate::v1 as pb;

impl TryFrom<pb::SessionKeys> for SessionKeys {
    type Error = Invalid;

    fn try_from(wire: pb::SessionKeys) -> Result<Self, Invalid> {
        let keys = wire.keys.iter().map(ring_key).collect::<Result<_, _>>()?;
        Ok(Self {
            ring: KeyRing::new(keys)?,
            ttl_max: Duration::from_secs(wire.ttl_max_s.into()),
            // Of no meaning to whoever reads it.
            salt: wire.salt.as_ref().try_into().unwrap_or_default(),
        })
    }
}

/// Says nothing of the secret, whatever is wrong with it.
fn ring_key(wire: &pb::SessionKey) -> Result<RingKey, Invalid> {
    let bytes: [u8; SessionKey::LEN] = wire.secret.as_ref().try_into().map_err(|_| {
        Invalid::value(
            "session_keys",
            format!(
                "the session key {} has {} bytes instead of {}",
                KeyId(wire.id),
                wire.secret.len(),
                SessionKey::LEN
            ),
        )
    })?;
    let role = match wire.role.as_str() {
        "active" => Role::Active,
        "next" => Role::Next,
        "retired" => Role::Retired { honoured_until_s: wire.honoured_until_s },
        _ => {
            return Err(Invalid::unknown(
                "session_keys",
                "unknown_role",
                format!("the role of session key {} is not known to this build", KeyId(wire.id)),
            ));
        }
    };
    Ok(RingKey { key: SessionKey::new(KeyId(wire.id), bytes).made_at(wire.made_s), role })
}

impl From<&SessionKeys> for pb::SessionKeys {
    fn from(keys: &SessionKeys) -> Self {
        Self {
            keys: keys.ring.keys().iter().map(pb::SessionKey::from).collect(),
            ttl_max_s: u32::try_from(keys.ttl_max.as_secs()).unwrap_or(u32::MAX),
            salt: keys.salt.to_vec().into(),
        }
    }
}

impl From<&RingKey> for pb::SessionKey {
    fn from(held: &RingKey) -> Self {
        Self {
            id: held.key.id().0,
            secret: held.key.bytes().to_vec().into(),
            role: held.role.name().to_owned(),
            honoured_until_s: match held.role {
                Role::Retired { honoured_until_s } => honoured_until_s,
                Role::Active | Role::Next => 0,
            },
            made_s: held.key.made_s(),
        }
    }
}

impl fmt::Debug for pb::SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKeys({} secrets)", self.keys.len())
    }
}

impl fmt::Debug for pb::SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({}, secret)", KeyId(self.id))
    }
}

impl fmt::Debug for pb::StoredObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, revision, payload } = self;
        write!(f, "StoredObject({kind} {name} @{revision}, {} bytes)", payload.len())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lb_core::{
        model::{Key, Resource},
        sync::Object,
    };

    use super::*;
    use crate::convert::{decode, encode, object_to_wire, sync::stored_to_wire};

    fn keys() -> SessionKeys {
        let key = |id| SessionKey::new(KeyId(id), *b"0123456789abcdef0123456789abcdef").made_at(9);
        let retired = Role::Retired { honoured_until_s: 77 };
        let held = |id, role| RingKey { key: key(id), role };
        let ring = [held(1, Role::Active), held(2, Role::Next), held(3, retired)];
        SessionKeys {
            ring: KeyRing::new(ring.to_vec()).unwrap(),
            ttl_max: Duration::from_secs(3600),
            salt: [5; SessionKeys::SALT_LEN],
        }
    }

    #[test]
    fn keys_survive_the_wire() {
        let resource = Resource::SessionKeys(keys());
        assert_eq!(decode("session_keys", &encode(&resource)), Ok(resource.clone()));
        assert_eq!(object_to_wire(&resource, 3).object, None, "nobody is answered with them");
    }

    #[test]
    fn nothing_that_can_be_printed_has_a_secret() {
        let resource = Resource::SessionKeys(keys());
        let wire = pb::SessionKeys::from(&keys());
        let payload = encode(&resource);
        let object = Object { key: resource.key(), revision: 3, payload };
        let stored = stored_to_wire(object.clone());
        let chunk = pb::SnapshotChunk { nonce: 1, objects: vec![stored.clone()] };
        let shown =
            format!("{resource:?} {wire:?} {:?} {object:?} {stored:?} {chunk:#?}", wire.keys);
        for leak in ["0123", "abcdef", "48, 49", "0x30"] {
            assert!(!shown.contains(leak), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_without_it() {
        let mut wire = pb::SessionKeys::from(&keys());
        wire.keys[0].secret = Bytes::from_static(b"short secret");
        let error = SessionKeys::try_from(wire).unwrap_err();
        assert_eq!(error.message, "the session key 00000001 has 12 bytes instead of 32");
        let other =
            Object { key: Key::new("pool", "p"), revision: 1, payload: Bytes::from_static(b"x") };
        assert!(format!("{other:?}").contains("1 bytes"));
    }
}
