//! Client hashing: who moves when the backends change, and how even the shares are.

use std::net::{IpAddr, Ipv6Addr};

use lb_core::{
    balance::{Candidate, HashKey, Phase, Picker},
    model::Algorithm::IpHash,
};

use crate::support::{Idle, Proxy};

const CLIENTS: u32 = 100_000;

/// A fleet of so many backends.
struct Backends(Vec<String>);

impl Backends {
    fn new(count: usize) -> Self {
        Self((1..=count).map(|i| format!("backend{i}")).collect())
    }

    /// The backend of each of the clients, by name.
    fn picks(&self, clients: u32) -> Vec<&str> {
        let candidates: Vec<_> =
            (0..).zip(&self.0).map(|(slot, id)| Candidate { slot, id, weight: 1 }).collect();
        let mut proxy = Proxy::new(Picker::build(IpHash, &candidates), Phase::default());
        (0..clients)
            .map(|n| proxy.pick_for(client(n), &Idle, &[]).expect("a backend"))
            .map(|slot| self.0[slot as usize].as_str())
            .collect()
    }

    fn without(&self, gone: usize) -> Self {
        let mut rest = self.0.clone();
        rest.remove(gone);
        Self(rest)
    }
}

/// Neighbours, as the addresses of real clients are; every other one has IPv6.
fn client(n: u32) -> IpAddr {
    if n.is_multiple_of(2) {
        IpAddr::from((0x0A00_0000 + n / 2).to_be_bytes())
    } else {
        Ipv6Addr::from_bits((0x2001_0db8 << 96) + (u128::from(n) << 64) + 1).into()
    }
}

/// The part of the clients that move although their backend is still there, at the
/// worst of five removals.
fn needless_moves(count: usize) -> f64 {
    let all = Backends::new(count);
    let before = all.picks(CLIENTS);
    let worst = (0..5).map(|n| n * count / 5).map(|gone| {
        let rest = all.without(gone);
        let moved = |(before, after): &(&&str, &str)| *before != after && **before != all.0[gone];
        before.iter().zip(rest.picks(CLIENTS)).filter(moved).count()
    });
    worst.max().expect("five removals") as f64 / f64::from(CLIENTS)
}

#[test]
fn a_removal_moves_hardly_any_client_of_another_backend() {
    for (count, bound) in [(10, 0.005), (100, 0.008), (1_000, 0.008)] {
        let needless = needless_moves(count);
        println!("1 of {count} removed: {:.2} % of clients moved needlessly", needless * 100.0);
        assert!(needless <= bound, "1 of {count} removed: {needless}");
    }
}

#[test]
fn all_proxies_agree_in_whatever_order_they_learnt_of_the_backends() {
    let ordered = Backends::new(100);
    let mut shuffled = Backends::new(100);
    fastrand::Rng::with_seed(1).shuffle(&mut shuffled.0);
    assert_ne!(ordered.0, shuffled.0);
    assert!(ordered.picks(CLIENTS) == shuffled.picks(CLIENTS));
}

#[test]
fn clients_spread_evenly() {
    let backends = Backends::new(100);
    let mut clients = std::collections::HashMap::new();
    for backend in backends.picks(1_000_000) {
        *clients.entry(backend).or_insert(0_u32) += 1;
    }
    let most = f64::from(*clients.values().max().unwrap()) / 10_000.0;
    println!("100 backends, 10 000 clients each: the most is {most:.3} of the mean");
    assert!(most <= 1.08, "{most}");
}

/// A backend that fails passes its clients on to all others alike, and only its own.
#[test]
fn the_clients_of_a_failing_backend_spread_over_the_others() {
    let ids = Backends::new(10).0;
    let candidates: Vec<_> =
        (0..).zip(&ids).map(|(slot, id)| Candidate { slot, id, weight: 1 }).collect();
    let mut proxy = Proxy::new(Picker::build(IpHash, &candidates), Phase::default());
    let mut taken_over = [0_u32; 10];
    for n in 0..CLIENTS {
        let first = proxy.pick_for(client(n), &Idle, &[]).unwrap();
        let second = proxy.pick_for(client(n), &Idle, &[3]).unwrap();
        if first == 3 {
            taken_over[second as usize] += 1;
        } else {
            assert_eq!(first, second);
        }
    }
    let total = f64::from(taken_over.iter().sum::<u32>());
    for (slot, &count) in taken_over.iter().enumerate().filter(|(slot, _)| *slot != 3) {
        let of_fair = f64::from(count) / (total / 9.0);
        assert!((0.85..1.15).contains(&of_fair), "backend {slot} took over {of_fair} of its share");
    }
}

/// A field's value decides alone, on every proxy, whatever address it comes from.
#[test]
fn values_of_a_field_spread_evenly_and_stay() {
    let ids = Backends::new(10).0;
    let candidates: Vec<_> =
        (0..).zip(&ids).map(|(slot, id)| Candidate { slot, id, weight: 1 }).collect();
    let proxy = |index| Proxy::new(Picker::build(IpHash, &candidates), Phase { index, count: 2 });
    let (mut one, mut other) = (proxy(0), proxy(1));
    let mut users = [0_u32; 10];
    for n in 0..CLIENTS {
        let user = format!("user-{n}");
        let key = HashKey::Value(user.as_bytes());
        let slot = one.pick_by(key, &Idle, &[]).unwrap();
        assert_eq!(other.pick_by(key, &Idle, &[]), Some(slot));
        assert_ne!(one.pick_by(key, &Idle, &[slot]), Some(slot));
        users[slot as usize] += 1;
    }
    for (slot, &count) in users.iter().enumerate() {
        let of_fair = f64::from(count) / f64::from(CLIENTS / 10);
        assert!((0.95..1.05).contains(&of_fair), "backend {slot} has {of_fair} of its share");
    }
}
