//! What the answers of a pool's sources change in its backends.
//!
//! A backend that was added by hand is never touched, and keeps its address from being
//! discovered. Of several sources that tell the same address, the first of the pool's
//! list owns it. A source that has not answered since the control plane started owns
//! what it owned before: nothing is removed on silence.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use super::{Found, priority_in_use};
use crate::model::{Address, AdminState, Backend, BackendId, Health, PoolName, Source, Weight};

/// A backend that a pool has now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// As the registry holds it.
    pub backend: Backend,
    /// The verdict about it.
    pub health: Health,
}

impl Member {
    /// Whether it gets requests, weights aside.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.health == Health::Up && self.backend.admin_state == AdminState::Enabled
    }

    /// Whether it waits for its first verdict.
    pub(super) fn is_unjudged(&self) -> bool {
        self.health == Health::Unknown && self.backend.admin_state == AdminState::Enabled
    }

    /// Whether it serves, or may once it is judged.
    fn may_serve(&self) -> bool {
        self.health != Health::Down && self.backend.admin_state == AdminState::Enabled
    }
}

/// A source of a pool with its last answer.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The source.
    pub source: &'a Source,
    /// What it told; nothing if it has not answered yet.
    pub found: Option<&'a [Found]>,
}

/// What the answers change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// New and changed backends.
    pub puts: Vec<Backend>,
    /// Backends that no source tells any more.
    pub gone: BTreeSet<BackendId>,
    /// What was told and cannot be a backend: by which source, and why.
    pub skipped: Vec<(Source, String)>,
}

/// Compares the answers with the members of a pool. `taken` tells whether a backend of
/// any pool has an id.
#[must_use]
pub fn changes(
    pool: &PoolName,
    sources: &[Answered<'_>],
    members: &[Member],
    taken: impl Fn(&BackendId) -> bool,
) -> Changes {
    let by_address: BTreeMap<&Address, &Member> =
        members.iter().map(|member| (&member.backend.address, member)).collect();
    let mut draft = Draft {
        pool,
        sources,
        by_address,
        claimed: BTreeMap::new(),
        ids: BTreeSet::new(),
        taken: &taken,
        changes: Changes::default(),
    };
    for answered in sources {
        if let Some(found) = answered.found {
            draft.take(answered.source, found);
        }
    }
    let gone = members.iter().filter(|member| draft.is_gone(&member.backend));
    let gone = gone.map(|member| member.backend.id.clone()).collect();
    Changes { gone, ..draft.changes }
}

struct Draft<'a> {
    pool: &'a PoolName,
    sources: &'a [Answered<'a>],
    by_address: BTreeMap<&'a Address, &'a Member>,
    /// The addresses that have an owner, and which.
    claimed: BTreeMap<&'a Address, &'a Source>,
    /// Ids given in these changes.
    ids: BTreeSet<BackendId>,
    taken: &'a dyn Fn(&BackendId) -> bool,
    changes: Changes,
}

impl<'a> Draft<'a> {
    fn take(&mut self, source: &'a Source, found: &'a [Found]) {
        let in_use = priority_in_use(found.iter().map(|one| {
            let member = self.by_address.get(&one.address);
            (one.priority, member.is_none_or(|member| member.may_serve()))
        }));
        for one in found {
            let weight = match one.weight {
                _ if one.priority != in_use => Weight::NONE,
                Some(weight) => weight,
                None => Weight::default(),
            };
            if let Err(why) = self.claim(source, one, weight) {
                self.changes.skipped.push((source.clone(), why));
            }
        }
    }

    fn claim(&mut self, source: &'a Source, one: &'a Found, weight: Weight) -> Result<(), String> {
        let address = &one.address;
        if let Some(owner) = self.claimed.get(address) {
            return Err(format!("{address} is a backend of {owner} already"));
        }
        let Some(member) = self.by_address.get(address) else {
            let id = self.id_for(source, one)?;
            self.ids.insert(id.clone());
            self.claimed.insert(address, source);
            self.changes.puts.push(Backend {
                weight,
                source: Some(source.clone()),
                ..Backend::new(id, self.pool.clone(), address.clone())
            });
            return Ok(());
        };
        let backend = &member.backend;
        match &backend.source {
            None => return Err(format!("{address} is backend {}, added by hand", backend.id)),
            Some(owner) if owner != source && self.is_silent(owner) => {
                return Err(format!("{address} is a backend of {owner}, which has not answered"));
            }
            Some(_) => {}
        }
        self.claimed.insert(address, source);
        let weight = if source.gives_weights() { weight } else { backend.weight };
        let wanted = Backend { weight, source: Some(source.clone()), ..backend.clone() };
        if wanted != *backend {
            self.changes.puts.push(wanted);
        }
        Ok(())
    }

    /// Whether a source of the pool has not answered yet.
    fn is_silent(&self, source: &Source) -> bool {
        self.sources.iter().any(|one| one.source == source && one.found.is_none())
    }

    fn is_gone(&self, backend: &Backend) -> bool {
        backend.source.as_ref().is_some_and(|source| {
            !self.claimed.contains_key(&backend.address) && !self.is_silent(source)
        })
    }

    /// The same for the same pool and address, so that counters and dashboards follow a
    /// backend that comes back; with a hash behind it when that id has another owner.
    fn id_for(&self, source: &Source, one: &Found) -> Result<BackendId, String> {
        let free = |id: &BackendId| !(self.taken)(id) && !self.ids.contains(id);
        if let Some(id) = &one.id {
            return if free(id) {
                Ok(id.clone())
            } else {
                Err(format!("id {id} of {} belongs to another backend", one.address))
            };
        }
        let text = format!("{}-{}", self.pool, one.address);
        let plain: String = text.chars().filter_map(in_a_name).collect();
        if let Some(id) = BackendId::new(&plain).ok().filter(free) {
            return Ok(id);
        }
        let hash = xxh3_64(format!("{} {source} {}", self.pool, one.address).as_bytes());
        let stem: String = plain.chars().take(ID_STEM).collect();
        let id = BackendId::new(&format!("{stem}-{hash:016x}")).map_err(|error| error.message)?;
        if free(&id) { Ok(id) } else { Err(format!("id {id} belongs to another backend")) }
    }
}

/// What remains of a name of 63 bytes beside a sign and a hash of 16 digits.
const ID_STEM: usize = 46;

/// Addresses in names: `[2001:db8::1]:80` is `2001_db8__1_80`.
fn in_a_name(c: char) -> Option<char> {
    match c {
        '[' | ']' => None,
        ':' => Some('_'),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool() -> PoolName {
        PoolName::new("web").unwrap()
    }

    fn source(text: &str) -> Source {
        text.parse().unwrap()
    }

    fn found(address: &str) -> Found {
        Found::new(address.parse().unwrap())
    }

    fn run(sources: &[(&Source, Option<&[Found]>)], members: &[Member]) -> Changes {
        let answered: Vec<Answered<'_>> =
            sources.iter().map(|(source, found)| Answered { source, found: *found }).collect();
        let taken = |id: &BackendId| members.iter().any(|member| member.backend.id == *id);
        changes(&pool(), &answered, members, taken)
    }

    /// The members after these changes, all of them up.
    fn after(members: &[Member], changes: &Changes) -> Vec<Member> {
        let mut all: BTreeMap<BackendId, Member> =
            members.iter().map(|m| (m.backend.id.clone(), m.clone())).collect();
        for backend in &changes.puts {
            let member = Member { backend: backend.clone(), health: Health::Up };
            all.insert(backend.id.clone(), member);
        }
        all.into_values().filter(|member| !changes.gone.contains(&member.backend.id)).collect()
    }

    fn by_hand(address: &str) -> Member {
        let changes = run(&[(&source("dns:x.test:1"), Some(&[found(address)]))], &[]);
        let backend = Backend {
            id: BackendId::new("backend1").unwrap(),
            source: None,
            drain: None,
            max_in_flight: None,
            ..changes.puts[0].clone()
        };
        Member { backend, health: Health::Up }
    }

    #[test]
    fn a_set_that_changes_adds_what_is_new_and_names_what_is_gone() {
        let dns = source("dns:web.test:80");
        let first = [found("10.0.0.1:80"), found("[2001:db8::1]:80")];
        let members = after(&[], &run(&[(&dns, Some(&first))], &[]));
        let ids: Vec<&str> = members.iter().map(|m| m.backend.id.as_str()).collect();
        assert_eq!(ids, ["web-10.0.0.1_80", "web-2001_db8__1_80"]);
        let second = run(&[(&dns, Some(&[found("10.0.0.1:80"), found("10.0.0.2:80")]))], &members);
        assert_eq!(second.puts[0].id.as_str(), "web-10.0.0.2_80");
        assert_eq!(second.gone.iter().map(BackendId::as_str).collect::<Vec<_>>(), [ids[1]]);
    }

    #[test]
    fn silence_removes_nothing_and_a_source_that_is_taken_away_takes_its_backends_with_it() {
        let dns = source("dns:web.test:80");
        let members = after(&[], &run(&[(&dns, Some(&[found("10.0.0.1:80")]))], &[]));
        assert_eq!(run(&[(&dns, None)], &members), Changes::default());
        assert_eq!(run(&[], &members).gone.len(), 1);
    }

    #[test]
    fn a_backend_that_was_added_by_hand_stays_as_it_is() {
        let members = [by_hand("10.0.0.1:80")];
        let dns = source("dns:web.test:80");
        let changes = run(&[(&dns, Some(&[found("10.0.0.1:80")]))], &members);
        assert!(changes.puts.is_empty() && changes.gone.is_empty());
        assert!(changes.skipped[0].1.contains("backend1, added by hand"));
    }

    #[test]
    fn the_operators_weight_holds_where_the_source_has_none() {
        let (dns, file) = (source("dns:web.test:80"), source("file:/web"));
        for (source, kept) in [(&dns, 7), (&file, 1)] {
            let answer = [found("10.0.0.1:80")];
            let mut members = after(&[], &run(&[(source, Some(&answer))], &[]));
            members[0].backend.weight = Weight::new(7).unwrap();
            let changes = run(&[(source, Some(&answer))], &members);
            let weight = after(&members, &changes)[0].backend.weight;
            assert_eq!(weight.get(), kept, "{source}");
        }
    }

    #[test]
    fn a_later_priority_serves_only_while_no_earlier_one_can() {
        let srv = source("srv:_http._tcp.web.test");
        let mut answer = [found("a.test:80"), found("b.test:80")];
        answer[1].priority = 1;
        let mut members = after(&[], &run(&[(&srv, Some(&answer))], &[]));
        let weights = |members: &[Member]| -> Vec<u16> {
            members.iter().map(|m| m.backend.weight.get()).collect()
        };
        assert_eq!(weights(&members), [1, 0]);
        members[0].health = Health::Down;
        members = after(&members, &run(&[(&srv, Some(&answer))], &members));
        assert_eq!(weights(&members), [0, 1]);
    }

    #[test]
    fn an_id_of_another_is_not_taken() {
        let mut other = by_hand("10.0.0.9:80");
        other.backend.id = BackendId::new("web-10.0.0.1_80").unwrap();
        let dns = source("dns:web.test:80");
        let changes = run(&[(&dns, Some(&[found("10.0.0.1:80")]))], &[other]);
        assert!(changes.puts[0].id.as_str().starts_with("web-10.0.0.1_80-"));
    }

    fn any_answer() -> impl Strategy<Value = Option<Vec<Found>>> {
        let one = (0u8..8, 0u32..=256, 0u16..2).prop_map(|(host, weight, priority)| Found {
            weight: Some(Weight::new(weight).unwrap()),
            priority,
            ..found(&format!("10.0.0.{host}:80"))
        });
        let set = prop::collection::vec(one, 1..6).prop_map(|all| {
            let mut set: Vec<Found> = Vec::new();
            for one in all {
                if set.iter().all(|other| other.address != one.address) {
                    set.push(one);
                }
            }
            set
        });
        prop::option::of(set)
    }

    proptest! {
        /// Whatever two sources answer, one application settles it: the addresses are
        /// those told, each once, no id is used twice, and a hand-made backend stays.
        #[test]
        fn answers_are_settled_at_once(rounds in prop::collection::vec([any_answer(), any_answer()], 1..6)) {
            let sources = [source("srv:_a._tcp.web.test"), source("dns:web.test:80")];
            let mut members = vec![by_hand("10.0.0.0:80")];
            for round in &rounds {
                let answered: Vec<_> =
                    sources.iter().zip(round).map(|(s, a)| (s, a.as_deref())).collect();
                members = after(&members, &run(&answered, &members));
                let again = run(&answered, &members);
                prop_assert!(again.gone.is_empty());
                prop_assert!(again.puts.is_empty(), "{:?}", again.puts);
                let addresses: BTreeSet<_> = members.iter().map(|m| &m.backend.address).collect();
                prop_assert_eq!(addresses.len(), members.len());
                for found in round.iter().flatten().flatten() {
                    prop_assert!(addresses.contains(&found.address));
                }
                prop_assert!(members.iter().any(|member| member.backend.source.is_none()));
                if let [Some(a), Some(b)] = round {
                    let told: BTreeSet<_> = a.iter().chain(b).map(|found| &found.address).collect();
                    let owned = members.iter().filter(|member| member.backend.source.is_some());
                    prop_assert!(owned.into_iter().all(|m| told.contains(&m.backend.address)));
                }
            }
        }
    }
}
