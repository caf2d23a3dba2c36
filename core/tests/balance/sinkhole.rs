//! A backend that fails at once must not draw the traffic.
//!
//! Fifty backends with four slots each serve requests of 20 ms, exponentially
//! distributed, at 0.7 of what they can bear; one of them answers everything with an
//! error after 1 ms. Whoever looks only at what is in flight finds it idle.

use std::{cmp::Reverse, collections::BinaryHeap, net::Ipv4Addr, time::Duration};

use lb_core::{
    balance::{Loads, Phase},
    model::{Algorithm, LeastConnections},
};

use crate::support::{Proxy, picker};

const BACKENDS: usize = 50;
const SLOTS: usize = 4;
const SERVICE_US: f64 = 20_000.0;
const LOAD: f64 = 0.7;
const LASTS_US: u64 = 20_000_000;
const SINKHOLE: u32 = 17;

#[test]
fn a_failing_backend_gets_less_than_its_share_from_least_connections() {
    for proxies in [1, 8] {
        let share = sinkhole_share(proxies, LeastConnections::ERROR_HOLD);
        println!("{proxies} proxies: {share:.4} of the fair share");
        assert!(share <= 1.0, "{proxies} proxies: {share} of the fair share");
    }
}

#[test]
fn without_the_hold_it_would_get_many_times_its_share() {
    let share = sinkhole_share(1, Duration::ZERO);
    println!("without the hold: {share:.2} of the fair share");
    assert!(share >= 5.0, "{share} of the fair share");
}

/// How much of its fair share the failing backend gets.
fn sinkhole_share(proxies: u32, error_hold: Duration) -> f64 {
    let algorithm =
        Algorithm::LeastConnections(LeastConnections::new(5, error_hold).expect("a valid hold"));
    let hold_us = u64::try_from(error_hold.as_micros()).expect("at most a minute");
    let mut fleet: Vec<_> = (0..proxies)
        .map(|index| {
            let phase = Phase { index, count: proxies };
            (Proxy::new(picker(algorithm, &[1; BACKENDS]), phase), InFlight([0; BACKENDS]))
        })
        .collect();
    let mut rng = fastrand::Rng::with_seed(9);
    #[expect(clippy::cast_possible_truncation, reason = "some hundred milliseconds at most")]
    let mut exponential_us = |mean: f64| (-(1.0 - rng.f64()).ln() * mean).round() as u64;

    let mut free_at = [[0_u64; SLOTS]; BACKENDS];
    // When a request stops counting as in flight: time, proxy, backend.
    let mut ends: BinaryHeap<Reverse<(u64, usize, u32)>> = BinaryHeap::new();
    let mut now_us = 0;
    let (mut requests, mut swallowed) = (0_u32, 0_u32);
    loop {
        now_us += exponential_us(SERVICE_US / (LOAD * (BACKENDS * SLOTS) as f64));
        if now_us > LASTS_US {
            break;
        }
        while let Some(&Reverse((end, proxy, slot))) = ends.peek()
            && end <= now_us
        {
            ends.pop();
            fleet[proxy].1.0[slot as usize] -= 1;
        }
        let chosen = requests as usize % fleet.len();
        requests += 1;
        let (proxy, in_flight) = &mut fleet[chosen];
        let slot = proxy.pick_for(Ipv4Addr::LOCALHOST.into(), in_flight, &[]).expect("a backend");
        in_flight.0[slot as usize] += 1;
        let end = if slot == SINKHOLE {
            swallowed += 1;
            now_us + 1_000 + hold_us
        } else {
            // First come, first served, by whichever slot is free first.
            let free = free_at[slot as usize].iter_mut().min().expect("four slots");
            *free = now_us.max(*free) + exponential_us(SERVICE_US);
            *free
        };
        ends.push(Reverse((end, chosen, slot)));
    }
    f64::from(swallowed) / f64::from(requests) * BACKENDS as f64
}

struct InFlight([u32; BACKENDS]);

impl Loads for InFlight {
    fn in_flight(&self, slot: u32) -> u32 {
        self.0[slot as usize]
    }
}
