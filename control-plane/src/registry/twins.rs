//! Backends of a pool that are one server under two names.
//!
//! The same address twice is refused; the names of this machine are as good as the same. Whether
//! two other names mean one server is known once they are resolved: `lbctl check` tells then.

use std::collections::HashSet;

use lb_core::model::{Address, Backend, BackendId, Key, Kind, Resource};

use super::Catalog;

/// What stands for this machine.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Of backends that are put, those beside which another of their pool means the same server. It is
/// told when that begins, and not with every later change of one of them.
pub(super) fn warnings(catalog: &Catalog, upserts: &[Resource], deletes: &[Key]) -> Vec<String> {
    let put: HashSet<(&str, &Address)> =
        upserts.iter().filter_map(Resource::as_backend).map(place).collect();
    let begins = |backend: &&Backend| {
        let stored = catalog.backends().get(&backend.id).map(|stored| &stored.value);
        let was_there =
            stored.is_some_and(|stored| stored.is_wanted() && place(stored) == place(backend));
        backend.is_wanted() && !was_there
    };
    let told = |backend: &Backend| {
        let twin = aliases(&backend.address)
            .find_map(|alias| twin(catalog, &put, deletes, backend, &alias))?;
        Some(format!(
            "{} at {} seems to be the server that pool {} has as {twin} already: it gets the \
             requests of both; if so, 'lbctl remove-backend' one of them",
            backend.id, backend.address, backend.pool
        ))
    };
    upserts.iter().filter_map(Resource::as_backend).filter(begins).filter_map(told).collect()
}

fn place(backend: &Backend) -> (&str, &Address) {
    (backend.pool.as_str(), &backend.address)
}

/// Who has the alias: by its id if it is stored, by its address if it comes with the same write.
fn twin(
    catalog: &Catalog,
    put: &HashSet<(&str, &Address)>,
    deletes: &[Key],
    backend: &Backend,
    alias: &Address,
) -> Option<String> {
    let stored = catalog.members(&backend.pool).and_then(|members| members.get(alias));
    let goes = |id: &BackendId| deletes.contains(&Key::new(Kind::Backend.name(), id.as_str()));
    let is_wanted =
        |id: &BackendId| catalog.backends().get(id).is_some_and(|stored| stored.value.is_wanted());
    match stored.filter(|id| **id != backend.id && !goes(id) && is_wanted(id)) {
        Some(id) => Some(format!("{id} ({alias})")),
        None => put.contains(&(backend.pool.as_str(), alias)).then(|| alias.to_string()),
    }
}

/// Other ways to write an address of this machine.
fn aliases(address: &Address) -> impl Iterator<Item = Address> {
    let text = address.to_string();
    let is_one = LOOPBACK.iter().any(|name| text == format!("{name}:{}", address.port()));
    let names = if is_one { &LOOPBACK[..] } else { &[] };
    names
        .iter()
        .filter_map(|name| format!("{name}:{}", address.port()).parse().ok())
        .filter(move |alias| alias != address)
}

#[cfg(test)]
mod tests {
    use lb_core::model::{AdminState, Incarnation, PoolName, Weight};

    use super::*;

    fn backend(id: &str, address: &str) -> Resource {
        Resource::Backend(Backend {
            incarnation: Incarnation(1),
            ..Backend::new(
                BackendId::new(id).unwrap(),
                PoolName::default_pool(),
                address.parse().unwrap(),
            )
        })
    }

    #[test]
    fn one_server_under_two_names_is_told() {
        let mut catalog = Catalog::default();
        catalog.put(backend("b1", "localhost:8001"), 1);
        let told = |id: &str, address: &str| warnings(&catalog, &[backend(id, address)], &[]);
        let [warning] = &told("b2", "127.0.0.1:8001")[..] else { panic!("one") };
        assert!(warning.starts_with("b2 at 127.0.0.1:8001 seems to be the server"), "{warning}");
        assert!(warning.contains("b1 (localhost:8001)"), "{warning}");
        assert_eq!(told("b2", "[::1]:8001").len(), 1);
        for (id, address) in
            [("b2", "127.0.0.1:8002"), ("b2", "10.0.0.1:8001"), ("b1", "127.0.0.1:8001")]
        {
            assert!(told(id, address).is_empty(), "{id} {address}");
        }
        // Whoever follows the advice is not told again, nor is anybody whose twin gets nothing.
        let put = |catalog: &mut Catalog, id: &str, address: &str, state| {
            let Resource::Backend(one) = backend(id, address) else { unreachable!("it is one") };
            catalog.put(Resource::Backend(Backend { admin_state: state, ..one.clone() }), 2);
            one
        };
        let mut both = Catalog::default();
        put(&mut both, "b1", "localhost:8001", AdminState::Enabled);
        let other = put(&mut both, "b2", "127.0.0.1:8001", AdminState::Enabled);
        let draining = Backend { admin_state: AdminState::Draining, ..other.clone() };
        let heavier = Backend { weight: Weight::new(7).unwrap(), ..other.clone() };
        for changed in [draining, heavier] {
            assert!(warnings(&both, &[Resource::Backend(changed)], &[]).is_empty());
        }
        put(&mut both, "b2", "127.0.0.1:8001", AdminState::Disabled);
        assert_eq!(
            warnings(&both, &[Resource::Backend(other.clone())], &[]).len(),
            1,
            "it is back"
        );
        put(&mut both, "b1", "localhost:8001", AdminState::Disabled);
        assert!(warnings(&both, &[Resource::Backend(other)], &[]).is_empty());

        let gone = [Key::new("backend", "b1")];
        let moved = [backend("b2", "127.0.0.1:8001")];
        assert!(warnings(&catalog, &moved, &gone).is_empty());
        let both = [backend("b3", "localhost:9"), backend("b4", "127.0.0.1:9")];
        assert_eq!(warnings(&catalog, &both, &[]).len(), 2);
    }
}
