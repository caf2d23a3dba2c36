//! The round robins: exact shares, for one proxy and for several.

use std::{net::Ipv4Addr, sync::atomic::AtomicU64, thread};

use lb_core::{
    balance::{HashKey, Phase, PickContext},
    model::Algorithm::{IpHash, RoundRobin, WeightedRoundRobin},
};
use proptest::prelude::*;

use crate::support::{Idle, Proxy, picker};

/// Goes through a whole cycle and returns how far, in requests, any backend was away
/// from its exact share: over any prefix, and over any window.
fn deviations(weights: &[u16]) -> (f64, f64) {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    let cycle: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
    let mut proxy = Proxy::new(picker(WeightedRoundRobin, weights), Phase::default());
    let share = |slot: usize| f64::from(weights[slot] / divisor) / cycle as f64;

    let mut taken = vec![0_u32; weights.len()];
    // A backend is furthest behind just before a pick of it and furthest ahead just
    // after one; a window is the difference of two prefixes.
    let mut behind = vec![0.0_f64; weights.len()];
    let mut ahead = vec![0.0_f64; weights.len()];
    for turn in 0..cycle {
        let slot = proxy.pick() as usize;
        let before = f64::from(taken[slot]) - share(slot) * turn as f64;
        taken[slot] += 1;
        let after = f64::from(taken[slot]) - share(slot) * (turn + 1) as f64;
        behind[slot] = behind[slot].max(-before);
        ahead[slot] = ahead[slot].max(after);
    }
    for (&taken, &weight) in taken.iter().zip(weights) {
        assert_eq!(taken, u32::from(weight / divisor), "a cycle is exact");
    }
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let prefix = most(&mut behind.iter().chain(&ahead).copied());
    let window = most(&mut behind.iter().zip(&ahead).map(|(behind, ahead)| behind + ahead));
    (prefix, window)
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[test]
fn weights_1_2_1_give_exactly_5_10_5_of_20_requests() {
    let mut proxy = Proxy::new(picker(WeightedRoundRobin, &[1, 2, 1]), Phase::default());
    let mut taken = [0; 3];
    for _ in 0..20 {
        taken[proxy.pick() as usize] += 1;
    }
    assert_eq!(taken, [5, 10, 5]);
}

#[test]
fn shares_are_exact_to_one_request() {
    let mut hundred_and_ten_ones = vec![1; 11];
    hundred_and_ten_ones[0] = 100;
    for weights in
        [vec![5, 1, 1], hundred_and_ten_ones, (1..=100).collect(), (1..=256).collect(), vec![7; 3]]
    {
        let (prefix, window) = deviations(&weights);
        println!("{} backends: prefix {prefix:.2}, window {window:.2}", weights.len());
        assert!(prefix <= 1.0 && window <= 2.0, "{weights:?}: {prefix}, {window}");
    }
}

#[test]
fn cycles_too_long_for_a_table_keep_within_three_requests() {
    let one_giant = |light: usize| [vec![256], vec![1; light]].concat();
    let two_kinds = [vec![256; 250], vec![1; 1_700]].concat();
    let mut rng = fastrand::Rng::with_seed(1);
    let any = (0..2_000).map(|_| rng.u16(1..=256)).collect();
    for weights in [(1..=1_000).collect(), one_giant(70_000), two_kinds, any] {
        let (prefix, window) = deviations(&weights);
        println!("{} backends: prefix {prefix:.2}, window {window:.2}", weights.len());
        assert!(prefix <= 2.0 && window <= 3.0, "{} backends: {prefix}, {window}", weights.len());
    }
}

#[test]
fn ten_thousand_equal_weights_are_a_plain_round_robin() {
    let mut proxy = Proxy::new(picker(WeightedRoundRobin, &[200; 70_000]), Phase::default());
    assert!((0..70_000).all(|slot| proxy.pick() == slot));
}

/// The most that any of 50 backends gets, in parts of the fair share, from proxies
/// that all begin a cycle and serve so many requests each.
fn worst_after_a_push(requests: &[u32], phase: impl Fn(u32) -> Phase) -> f64 {
    const BACKENDS: usize = 50;
    let mut taken = [0_u32; BACKENDS];
    for (index, &requests) in (0..).zip(requests) {
        let mut proxy = Proxy::new(picker(WeightedRoundRobin, &[3; BACKENDS]), phase(index));
        for _ in 0..requests {
            taken[proxy.pick() as usize] += 1;
        }
    }
    let fair = f64::from(requests.iter().sum::<u32>()) / BACKENDS as f64;
    f64::from(taken.into_iter().max().expect("50 backends")) / fair
}

#[test]
fn phases_keep_many_proxies_out_of_step() {
    for (proxies, requests, bound) in
        [(8, 20, 1.25), (16, 20, 1.25), (64, 5, 1.42), (64, 20, 1.13), (64, 100, 1.03)]
    {
        let served = vec![requests; proxies];
        let count = u32::try_from(proxies).unwrap();
        let worst = worst_after_a_push(&served, |index| Phase { index, count });
        println!("{proxies} proxies, {requests} requests each: {worst:.3}");
        assert!(worst <= bound, "{proxies} proxies, {requests} requests each: {worst}");
    }
}

#[test]
fn without_phases_the_first_backends_get_two_and_a_half_times_their_share() {
    assert!(worst_after_a_push(&[20; 8], |_| Phase::default()) >= 2.5);
}

#[test]
fn uneven_traffic_after_a_push_stays_near_the_fair_share() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let served: Vec<_> = (0..8).map(|_| rng.u32(14..=26)).collect();
        let worst = worst_after_a_push(&served, |index| Phase { index, count: 8 });
        assert!(worst <= 1.7, "seed {seed}: {worst}");
    }
}

#[test]
fn workers_that_share_a_cursor_are_exact_together() {
    const WORKERS: u64 = 4;
    const CYCLES: u64 = 1_000;
    let picker = picker(WeightedRoundRobin, &[1, 2, 1]);
    let cursor = AtomicU64::new(0);
    let work = || {
        let mut taken = [0_u64; 3];
        for _ in 0..4 * CYCLES {
            let slot = picker.pick(&mut PickContext {
                key: HashKey::Client(Ipv4Addr::LOCALHOST.into()),
                cursor: &cursor,
                loads: &Idle,
                rng: &mut fastrand::Rng::with_seed(0),
                excluded: &[],
            });
            taken[slot.unwrap() as usize] += 1;
        }
        taken
    };
    let taken = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .fold([0; 3], |sum, taken| [sum[0] + taken[0], sum[1] + taken[1], sum[2] + taken[2]])
    });
    assert_eq!(taken, [1, 2, 1].map(|weight| weight * CYCLES * WORKERS));
}

#[test]
fn backends_take_turns_in_the_order_given() {
    let mut proxy = Proxy::new(picker(RoundRobin, &[9, 0, 1]), Phase::default());
    let turns: Vec<_> = (0..4).map(|_| proxy.pick()).collect();
    assert_eq!(turns, [0, 2, 0, 2], "weights count only as nought or not");
}

proptest! {
    #[test]
    fn any_weights_are_exact_to_one_request(weights in prop::collection::vec(1_u16..=256, 1..50)) {
        let (prefix, window) = deviations(&weights);
        prop_assert!(prefix < 1.0 + 1e-9 && window < 2.0 + 1e-9, "{}, {}", prefix, window);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the algorithm, a pick is a backend that may be picked, and there is a
    /// pick for as long as there is one.
    #[test]
    fn what_is_picked_may_be_picked(
        weights in prop::collection::vec(0_u16..=3, 0..12),
        excluded in prop::collection::vec(0_u32..12, 0..12),
        client: std::net::IpAddr,
        picks in 1..20,
    ) {
        let least_connections = "least_connections".parse().unwrap();
        let left = (0_u32..)
            .zip(&weights)
            .filter(|(slot, weight)| **weight > 0 && !excluded.contains(slot))
            .count();
        for algorithm in [RoundRobin, WeightedRoundRobin, IpHash, least_connections] {
            let mut proxy = Proxy::new(picker(algorithm, &weights), Phase { index: 1, count: 3 });
            for _ in 0..picks {
                match proxy.pick_for(client, &Idle, &excluded) {
                    None => prop_assert_eq!(left, 0),
                    Some(slot) => {
                        prop_assert!(weights[slot as usize] > 0);
                        prop_assert!(!excluded.contains(&slot));
                    }
                }
            }
        }
    }
}
