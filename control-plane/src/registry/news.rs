//! What a commit makes known as events.

use lb_core::model::{BackendStatus, Health, Key, Kind, Reason, Resource};

use lb_proto::document::details_between;

use super::{Catalog, draining, session_keys, standing};
use crate::events::EventType;

/// What is worth telling about a commit.
#[derive(Debug)]
pub(super) struct News {
    pub(super) what: EventType,
    pub(super) key: Key,
    pub(super) kind: Kind,
    pub(super) reason: Reason,
}

/// Of what changed, in an event, in bytes: a body of an answer may be long.
const CHANGED_MAX: usize = 400;

/// `weight: 1 -> 3`.
fn what_changed(former: &Resource, new: &Resource) -> String {
    let mut details = details_between(former, new);
    if details.len() > CHANGED_MAX {
        details.truncate(details.floor_char_boundary(CHANGED_MAX));
        details.push_str(" ...");
    }
    if details.is_empty() { "changed".to_owned() } else { details }
}

impl News {
    pub(super) fn is_about_an_object(&self) -> bool {
        matches!(self.what, EventType::ObjectChanged | EventType::ObjectRemoved)
    }

    /// Compares a change with the catalog before it.
    pub(super) fn of(before: &Catalog, upserts: &[Resource], deletes: &[Key]) -> Vec<Self> {
        let put = upserts.iter().flat_map(|resource| match resource {
            Resource::Status(status) => Self::of_status(before, status),
            Resource::SessionKeys(keys) => {
                let former = before.session_keys().map(|stored| &stored.value);
                let (what, kind) = (EventType::SessionKeysChanged, Kind::SessionKeys);
                let news = session_keys::news(former, keys);
                let news = news.map(|reason| Self { what, key: resource.key(), kind, reason });
                news.into_iter().collect()
            }
            resource => {
                let reason = match before.find(resource.kind(), resource.name()) {
                    None => Reason::new("added", "added"),
                    Some(former) => Reason::new("changed", what_changed(&former.value, resource)),
                };
                let key = resource.key();
                let change =
                    Self { what: EventType::ObjectChanged, key, kind: resource.kind(), reason };
                std::iter::once(change).chain(Self::of_drain(before, resource)).collect()
            }
        });
        let removed = deletes.iter().filter_map(|key| {
            let kind = key.known_kind().filter(|kind| *kind != Kind::Status)?;
            let reason = Reason::new("removed", "removed");
            Some(Self { what: EventType::ObjectRemoved, key: key.clone(), kind, reason })
        });
        put.chain(removed).collect()
    }

    fn of_drain(before: &Catalog, resource: &Resource) -> Option<Self> {
        let Resource::Backend(backend) = resource else { return None };
        let former = before.backends().get(&backend.id).map(|stored| &stored.value);
        let (what, reason) = draining::news(former, backend)?;
        Some(Self { what, key: resource.key(), kind: Kind::Backend, reason })
    }

    fn of_status(before: &Catalog, status: &BackendStatus) -> Vec<Self> {
        let Some(backend) = before.backends().get(&status.backend) else { return Vec::new() };
        let former = before.status(&backend.value).map_or(Health::Unknown, |former| former.health);
        let what: &[EventType] = match (former, status.health) {
            (former, health) if former == health => &[],
            (_, Health::Up) => &[EventType::BackendUp],
            (Health::Unknown, Health::Down) => {
                &[EventType::BackendCheckFailed, EventType::BackendDown]
            }
            (_, Health::Down) => &[EventType::BackendDown],
            (_, Health::Unknown) => &[],
        };
        let verdicts = what.iter().map(|what| (*what, status.reason.clone()));
        let standings = standing::news(before.status(&backend.value), status);
        let key = Key::new("backend", status.backend.as_str());
        verdicts
            .chain(standings)
            .map(|(what, reason)| Self { what, key: key.clone(), kind: Kind::Backend, reason })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use lb_core::model::{Backend, Weight};
    use lb_proto::v1 as pb;

    use super::*;

    fn backend(weight: u32) -> Resource {
        let wire = pb::Backend {
            id: "backend2".to_owned(),
            address: "a:1".to_owned(),
            pool: "default".to_owned(),
            ..pb::Backend::default()
        };
        let backend: Backend = wire.try_into().unwrap();
        Resource::Backend(Backend { weight: Weight::new(weight).unwrap(), ..backend })
    }

    #[test]
    fn an_event_says_what_changed() {
        assert_eq!(what_changed(&backend(1), &backend(3)), "weight: 1 -> 3");
        assert_eq!(what_changed(&backend(1), &backend(1)), "changed");
    }
}
