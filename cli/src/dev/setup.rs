//! What a `dev` tells its control plane, and when it may call itself ready.

use std::{collections::HashSet, time::Duration};

use lb_core::model::{Address, natural_order};
use lb_proto::v1::{self as pb, object::Object as Wire};
use tokio::time::Instant;

use crate::{
    args::Dev,
    client::Client,
    command::{
        Session,
        wait::{self, Look},
    },
    exit::{Exit, Failure},
    view::{BackendView, ProxyView},
};

/// The seed's weights; all further backends weigh 1.
const WEIGHTS: [u32; 3] = [1, 2, 1];

/// How long to wait for the proxies, and for the first checks of the backends.
const PROXIES_MAX: Duration = Duration::from_secs(15);
const BACKENDS_MAX: Duration = Duration::from_secs(3);

/// Writes, in one revision, what differs from a state that may be there already.
pub(super) async fn configure(
    client: &Client,
    args: &Dev,
    demo_addresses: &[&str],
) -> Result<(), Failure> {
    let pool = get(client, "pool").await?;
    let listener = get(client, "listener").await?;
    let request = pb::ListRequest { kind: "backend".to_owned(), pool: String::new() };
    let held = client.call(client.registry().list(request)).await?;
    let addresses: Vec<String> = if args.backends.is_empty() {
        demo_addresses.iter().map(|address| (*address).to_owned()).collect()
    } else {
        args.backends.iter().map(Address::to_string).collect()
    };
    let items = changes(args, pool, listener, &held.objects, &addresses);
    if items.is_empty() {
        return Ok(());
    }
    let items = items
        .into_iter()
        .map(|object| pb::ApplyItem {
            change: Some(pb::apply_item::Change::Put(pb::Object {
                object: Some(object),
                revision: 0,
            })),
        })
        .collect();
    let request = pb::ApplyRequest { items, options: None };
    client.call(client.registry().apply(request)).await.map(drop)
}

async fn get(client: &Client, kind: &str) -> Result<Option<Wire>, Failure> {
    let request = pb::GetRequest { kind: kind.to_owned(), name: "default".to_owned() };
    match client.call(client.registry().get(request)).await {
        Ok(answer) => Ok(answer.object.and_then(|object| object.object)),
        // A kept state may lack it.
        Err(failure) if failure.exit == Exit::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn changes(
    args: &Dev,
    pool: Option<Wire>,
    listener: Option<Wire>,
    held: &[pb::Object],
    addresses: &[String],
) -> Vec<Wire> {
    let mut changes = Vec::new();
    let former = match pool {
        Some(Wire::Pool(pool)) => Some(pool),
        _ => None,
    };
    let pool = wanted_pool(args, former.clone());
    if former.as_ref() != Some(&pool) {
        changes.push(Wire::Pool(pool));
    }
    let mut listener = match listener {
        Some(Wire::Listener(listener)) => listener,
        _ => pb::Listener { name: "default".to_owned(), ..pb::Listener::default() },
    };
    if listener.trust_xff != "always" {
        "always".clone_into(&mut listener.trust_xff);
        changes.push(Wire::Listener(listener));
    }
    let known: HashSet<&str> = held
        .iter()
        .filter_map(|object| match &object.object {
            Some(Wire::Backend(backend)) => Some(backend.address.as_str()),
            _ => None,
        })
        .collect();
    for (index, address) in addresses.iter().enumerate() {
        if !known.contains(address.as_str()) {
            changes.push(Wire::Backend(pb::Backend {
                pool: "default".to_owned(),
                address: address.clone(),
                weight: Some(WEIGHTS.get(index).copied().unwrap_or(1)),
                ..pb::Backend::default()
            }));
        }
    }
    changes
}

/// The default pool with what was asked for.
fn wanted_pool(args: &Dev, former: Option<pb::Pool>) -> pb::Pool {
    let mut pool =
        former.unwrap_or_else(|| pb::Pool { name: "default".to_owned(), ..pb::Pool::default() });
    if let Some(algorithm) = &args.algorithm {
        algorithm.clone_into(&mut pool.algorithm);
    }
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    if let Some(interval) = args.health_interval {
        pool.health_check.get_or_insert_default().interval_ms = millis(interval);
    }
    if let Some(timeout) = args.request_timeout {
        pool.request_timeout_ms = millis(timeout);
    }
    if let Some(ttl) = args.session_timeout {
        let affinity = pool.affinity.get_or_insert_default();
        "cookie".clone_into(&mut affinity.kind);
        affinity.ttl_ms = millis(ttl);
    }
    pool
}

/// Waits until every proxy has applied the state with all backends up. What does not
/// come true in time is returned in words; it may still come. Only a declared state may
/// have no backends.
pub(super) async fn await_serving(
    session: &Session,
    proxies: usize,
    declared: bool,
) -> Result<Vec<String>, Failure> {
    let client = &session.client;
    let mut problems = Vec::new();
    let connected = wait::until(client, Instant::now() + PROXIES_MAX, async || {
        let (views, _) = list_proxies(client).await?;
        let connected = views.iter().filter(|view| view.is_connected()).count();
        let text = format!("{connected}/{proxies} proxies are connected");
        Ok(if connected < proxies { Look::NotYet(text) } else { Look::Done(text) })
    });
    note(&mut problems, connected.await?);
    let up = wait::until(client, Instant::now() + BACKENDS_MAX, async || {
        let backends = list_backends(client).await?.0;
        if declared && backends.iter().all(|backend| backend.admin_state != "enabled") {
            return Ok(Look::Done("there is nothing to check".to_owned()));
        }
        Ok(wait::judge_pool("default", &backends))
    });
    note(&mut problems, up.await?);
    // The verdicts are news for the proxies, too.
    let revision = list_backends(client).await?.1;
    let progress = wait::applied(client, revision, PROXIES_MAX).await?;
    problems.extend(
        progress.rejections.iter().map(|refused| {
            format!("{} refused {}", refused.proxy_id, refused.rejection.sentence())
        }),
    );
    problems.extend(progress.laggards.iter().map(|late| {
        format!("{} is {} at revision {}", late.proxy_id, late.state, late.applied_revision)
    }));
    Ok(problems)
}

fn note(problems: &mut Vec<String>, look: Look) {
    if let Look::NotYet(problem) = look {
        problems.push(problem);
    }
}

/// The proxies, and the store's revision.
pub(super) async fn list_proxies(client: &Client) -> Result<(Vec<ProxyView>, u64), Failure> {
    let answer = client.call(client.fleet().list_proxies(pb::ListProxiesRequest {})).await?;
    let mut views: Vec<ProxyView> = answer.proxies.into_iter().map(ProxyView::from).collect();
    views.sort_by(|a, b| natural_order(&a.id, &b.id));
    Ok((views, answer.store_revision))
}

/// The backends of all pools, and the store's revision.
pub(super) async fn list_backends(client: &Client) -> Result<(Vec<BackendView>, u64), Failure> {
    let request = pb::ListBackendsRequest::default();
    let answer = client.call(client.fleet().list_backends(request)).await?;
    let mut views: Vec<BackendView> = answer.backends.into_iter().map(BackendView::from).collect();
    views.sort_by(|a, b| natural_order(&a.id, &b.id));
    Ok((views, answer.store_revision))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &str) -> Dev {
        let words = ["lbctl", "dev"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Dev(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn addresses(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn fresh() -> (Option<Wire>, Option<Wire>) {
        let pool = pb::Pool {
            name: "default".to_owned(),
            algorithm: "round_robin".to_owned(),
            ..pb::Pool::default()
        };
        let listener = pb::Listener { name: "default".to_owned(), ..pb::Listener::default() };
        (Some(Wire::Pool(pool)), Some(Wire::Listener(listener)))
    }

    #[test]
    fn a_fresh_state_gets_trust_and_the_seeds_weights() {
        let (pool, listener) = fresh();
        let four = addresses(&["a:1", "a:2", "a:3", "a:4"]);
        let changes = changes(&args(""), pool, listener, &[], &four);
        let [Wire::Listener(listener), backends @ ..] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!(listener.trust_xff, "always");
        let weights: Vec<Option<u32>> = backends
            .iter()
            .map(|object| match object {
                Wire::Backend(backend) => backend.weight,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(weights, [Some(1), Some(2), Some(1), Some(1)]);
    }

    #[test]
    fn what_is_kept_from_the_last_time_is_not_written_again() {
        let (pool, mut listener) = fresh();
        if let Some(Wire::Listener(listener)) = &mut listener {
            "always".clone_into(&mut listener.trust_xff);
        }
        let backend = pb::Backend { address: "a:1".to_owned(), ..pb::Backend::default() };
        let held = [pb::Object { object: Some(Wire::Backend(backend)), revision: 3 }];
        let asked = args("--algorithm round_robin");
        let same = changes(&asked, pool, listener, &held, &addresses(&["a:1"]));
        assert!(same.is_empty(), "{same:?}");
    }

    #[test]
    fn settings_of_the_pool_are_written_when_they_are_others() {
        let (pool, listener) = fresh();
        let asked = args(
            "--algorithm ip_hash --health-interval 30s --request-timeout 7s --session-timeout 5m",
        );
        let changes = changes(&asked, pool, listener, &[], &[]);
        let Wire::Pool(pool) = &changes[0] else { panic!("{changes:?}") };
        assert_eq!((pool.algorithm.as_str(), pool.request_timeout_ms), ("ip_hash", 7000));
        assert_eq!(pool.health_check.as_ref().unwrap().interval_ms, 30_000);
        let affinity = pool.affinity.as_ref().unwrap();
        assert_eq!((affinity.kind.as_str(), affinity.ttl_ms), ("cookie", 300_000));
    }
}
