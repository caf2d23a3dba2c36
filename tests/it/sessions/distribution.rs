//! New sessions are shared out as the algorithm says, and a removal moves its own only.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use lb_tests::{
    backend::Backend,
    client::Client,
    cluster::{Cluster, no_checks},
};
use tokio::task::JoinSet;

use super::{Visit, revisit, sticky};
use crate::program;

const PROXIES: usize = 8;
const BACKENDS: usize = 20;
const SESSIONS: usize = 20_000;

/// Weights of 1, 2, 3, 4, again and again: 50 in all.
fn weight(number: usize) -> usize {
    number % 4 + 1
}

async fn fleet(weights: bool) -> (Cluster, Vec<Backend>) {
    let cluster = Cluster::start(program(), PROXIES).await;
    cluster.api.change_pool(no_checks).await;
    let mut backends = Vec::new();
    for number in 0..BACKENDS {
        let backend = Backend::saying(&format!("backend{}", number + 1));
        let weight = if weights { weight(number) } else { 1 };
        cluster.api.add_backend(backend.address(), u32::try_from(weight).unwrap()).await;
        backends.push(backend);
    }
    cluster.settled().await;
    (cluster, backends)
}

/// Sends many requests, each proxy its share of them, and tells what came of each, proxy by
/// proxy. `fields` gives what a request says beside its Host.
async fn all(addresses: &[SocketAddr], fields: Vec<Vec<String>>) -> Vec<Vec<Visit>> {
    let mut tasks = JoinSet::new();
    for (proxy, (address, fields)) in addresses.iter().copied().zip(fields).enumerate() {
        tasks.spawn(async move {
            let mut visits = Vec::new();
            for some in fields.chunks(900) {
                let mut client = Client::connect(address).await;
                for field in some {
                    let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{field}\r\n");
                    client.send(request).await;
                    visits.push(Visit::of(&client.response().await));
                }
            }
            (proxy, visits)
        });
    }
    let mut all: Vec<(usize, Vec<Visit>)> = tasks.join_all().await;
    all.sort_by_key(|(proxy, _)| *proxy);
    all.into_iter().map(|(_, visits)| visits).collect()
}

fn tally<'v>(visits: impl IntoIterator<Item = &'v Visit>) -> BTreeMap<&'v str, usize> {
    let mut counts = BTreeMap::new();
    for visit in visits {
        *counts.entry(visit.said.as_str()).or_default() += 1;
    }
    counts
}

/// The largest difference from the shares, in sessions and as a part of the share.
fn worst(counts: &BTreeMap<&str, usize>, share: impl Fn(usize) -> f64) -> (f64, f64) {
    (0..BACKENDS).fold((0.0, 0.0), |(most, part), number| {
        let count = counts.get(&*format!("backend{}", number + 1)).copied().unwrap_or_default();
        let off = (count as f64 - share(number)).abs();
        (f64::max(most, off), f64::max(part, off / share(number)))
    })
}

#[tokio::test]
async fn new_sessions_follow_the_weights_exactly_and_a_removal_moves_its_own() {
    let (cluster, backends) = fleet(true).await;
    cluster
        .api
        .change_pool(|pool| {
            sticky(pool);
            "weighted_round_robin".clone_into(&mut pool.algorithm);
        })
        .await;
    let addresses = cluster.addresses();
    let none = vec![vec![String::new(); SESSIONS / PROXIES]; PROXIES];
    let begun = all(&addresses, none).await;
    let share = |total: usize| move |number| (total * weight(number)) as f64 / 50.0;
    for (proxy, visits) in begun.iter().enumerate() {
        let (off, _) = worst(&tally(visits), share(SESSIONS / PROXIES));
        assert!(off <= 1.0, "proxy-{}: {off}", proxy + 1);
    }
    let (off, _) = worst(&tally(begun.iter().flatten()), share(SESSIONS));
    println!("{SESSIONS} sessions over {BACKENDS} backends: at most {off} from the weighted share");
    assert!(off <= 1.0, "{off}");

    drop(cluster.lbctl(&["remove-backend", "backend7"]).await.expect(0));
    // Each comes back to another proxy than the one that it began with.
    let mut fields: Vec<Vec<String>> = begun
        .iter()
        .map(|visits| visits.iter().map(|v| format!("Cookie: {}\r\n", v.begun())).collect())
        .collect();
    fields.rotate_left(3);
    let mut before = begun.clone();
    before.rotate_left(3);
    let again = all(&addresses, fields).await;
    let mut moved = 0;
    for (before, now) in before.iter().flatten().zip(again.iter().flatten()) {
        assert_ne!(now.said, "backend7");
        if before.said == "backend7" {
            assert!(now.cookie.is_some());
            moved += 1;
        } else {
            assert_eq!((&now.said, &now.cookie), (&before.said, &None));
        }
    }
    println!("removing one of them moved its own {moved} and no other");
    assert_eq!(moved, SESSIONS * weight(6) / 50);
    drop(backends);
}

#[tokio::test]
async fn values_of_a_field_are_spread_evenly_and_a_removal_moves_few_others() {
    let (cluster, backends) = fleet(false).await;
    let sticky = ["set-pool", "default", "--sticky", "header:X-User-Id"];
    drop(cluster.lbctl(&sticky).await.expect(0));
    let addresses = cluster.addresses();
    let users = |shift: usize| -> Vec<Vec<String>> {
        (0..PROXIES)
            .map(|proxy| {
                let of = (proxy + shift) % PROXIES;
                (0..SESSIONS / PROXIES).map(|n| format!("x-user-id: user-{of}-{n}\r\n")).collect()
            })
            .collect()
    };
    let mut before = all(&addresses, users(0)).await;
    let (_, part) = worst(&tally(before.iter().flatten()), |_| (SESSIONS / BACKENDS) as f64);
    println!("{SESSIONS} values over {BACKENDS} backends: at most {:.1} % off", part * 100.0);
    assert!(part <= 0.12, "{part}");
    assert!(before.iter().flatten().all(|visit| visit.cookie.is_none()));

    drop(cluster.lbctl(&["remove-backend", "backend7"]).await.expect(0));
    let again = all(&addresses, users(3)).await;
    before.rotate_left(3);
    let pairs: Vec<(&Visit, &Visit)> =
        before.iter().flatten().zip(again.iter().flatten()).collect();
    let others = pairs.iter().filter(|(before, _)| before.said != "backend7");
    let moved = others.clone().filter(|(before, now)| before.said != now.said).count();
    let of = others.count();
    println!("removing one of them moved {moved} of {of} others");
    assert!(moved * 100 <= of, "{moved} of {of}");

    // Without the field the pool's algorithm picks.
    let mut client = Client::connect(cluster.address()).await;
    let mut said = Vec::new();
    for _ in 0..BACKENDS - 1 {
        said.push(revisit(&mut client, None).await.said);
    }
    said.sort();
    said.dedup();
    assert_eq!(said.len(), BACKENDS - 1, "each had a turn");
    drop(Arc::new(backends));
}
