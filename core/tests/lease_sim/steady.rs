//! What leases are worth when nothing goes wrong, in figures.

use std::ops::Range;

use lb_core::lease::{OnLoss, Terms};

use crate::{
    Duration, ms,
    plan::{Faults, Plan},
    world::World,
};

fn plan(seed: u64, demands: &'static [f64]) -> Plan {
    Plan {
        seed,
        faults: Faults::None,
        on_loss: OnLoss::SafeShare,
        terms: Terms::rate(),
        is_rate: true,
        proxies: 8,
        quantity: 1000,
        burst: 100,
        report_every_ms: 100,
        calm_ms: 0,
        end_ms: 13_000,
        demands,
        at_random: false,
        service_ms: (50, 50),
    }
}

/// Requests asked for and admitted after a start of 3 s.
fn figures(plan: Plan) -> (f64, f64) {
    let mut world = World::new(plan, false);
    let totals = |world: &World| {
        let sum = |field: fn(&crate::node::Node) -> u64| world.nodes.iter().map(field).sum::<u64>();
        (sum(|node| node.asked) as f64, sum(|node| node.admitted) as f64)
    };
    world.run_until(ms(3_000)).expect("the bound holds");
    let before = totals(&world);
    world.run_until(ms(plan.end_ms)).expect("the bound holds");
    let after = totals(&world);
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn when_too_much_is_asked_for_the_rate_is_used_and_not_exceeded() {
    for (seed, report_every_ms) in [(1, 100), (2, 250), (3, 100), (4, 250)] {
        let skewed = &[1500.0, 600.0, 300.0, 200.0, 150.0, 150.0, 50.0, 50.0];
        let (_, admitted) = figures(Plan { report_every_ms, ..plan(seed, skewed) });
        let used = admitted / 10_000.0;
        println!("reports each {report_every_ms} ms: {:.2} % of the rate", used * 100.0);
        assert!((0.95..1.02).contains(&used), "{used}");
    }
}

/// Small limits, too, whose smaller parts are a few requests per second.
#[test]
fn a_small_rate_is_used_when_nine_tenths_come_to_one_proxy() {
    for (seed, report_every_ms) in [(1, 100), (2, 250), (3, 100), (4, 250)] {
        let skewed = &[270.0, 4.3, 4.3, 4.3, 4.3, 4.3, 4.3, 4.3];
        let plan = Plan { report_every_ms, quantity: 100, burst: 20, ..plan(seed, skewed) };
        let (_, admitted) = figures(plan);
        let used = admitted / 1_000.0;
        println!("reports each {report_every_ms} ms: {:.2} % of the rate", used * 100.0);
        assert!((0.95..1.05).contains(&used), "{used}");
    }
}

#[test]
fn a_legal_load_that_comes_unevenly_is_hardly_ever_refused() {
    for (seed, report_every_ms) in [(1, 100), (2, 250), (3, 100), (4, 250)] {
        let skewed = &[400.0, 150.0, 80.0, 60.0, 50.0, 30.0, 20.0, 10.0];
        let (asked, admitted) = figures(Plan { report_every_ms, ..plan(seed, skewed) });
        let refused = 1.0 - admitted / asked;
        println!("reports each {report_every_ms} ms: {:.2} % are refused", refused * 100.0);
        assert!(refused <= 0.02, "{refused}");
    }
}

/// Of what comes at random, and to one proxy almost alone.
#[test]
fn a_legal_load_at_one_proxy_is_hardly_ever_refused() {
    const ONE: [&[f64]; 3] = [
        &[72.0, 1.2, 1.2, 1.1, 1.1, 1.1, 1.1, 1.1],
        &[144.0, 2.3, 2.3, 2.3, 2.3, 2.3, 2.3, 2.2],
        &[720.0, 12.0, 12.0, 12.0, 11.0, 11.0, 11.0, 11.0],
    ];
    for (demands, quantity, burst) in [(ONE[0], 100, 20), (ONE[1], 200, 20), (ONE[2], 1000, 100)] {
        let (mut asked, mut admitted) = (0.0, 0.0);
        for (seed, report_every_ms) in [(1, 100), (2, 250), (3, 100), (4, 250)] {
            let plan = plan(seed, demands);
            let (at_random, end_ms) = (true, 33_000);
            let plan = Plan { report_every_ms, quantity, burst, at_random, end_ms, ..plan };
            let figures = figures(plan);
            (asked, admitted) = (asked + figures.0, admitted + figures.1);
        }
        let refused = 1.0 - admitted / asked;
        println!("{quantity} per second: {:.2} % are refused", refused * 100.0);
        assert!(refused <= 0.02, "{refused}");
    }
}

/// Slots in use over all proxies, times seconds.
fn held(world: &World) -> f64 {
    world.nodes.iter().map(|node| node.held).sum::<u64>() as f64 / 1e6
}

#[test]
fn two_slots_serve_eight_proxies_within_their_queues_deadlines() {
    for (seed, report_every_ms) in [(1, 100), (2, 250), (3, 100), (4, 250)] {
        let mut world = World::new(
            Plan {
                terms: Terms::slots(Duration::from_secs(30)),
                is_rate: false,
                quantity: 2,
                end_ms: 30_000,
                report_every_ms,
                ..plan(seed, &[20.0])
            },
            false,
        );
        world.run().unwrap();
        let longest =
            world.nodes.iter().map(|node| node.longest_wait.max(world.now - node.served_at));
        let longest = longest.max().unwrap();
        let used = held(&world) / (2.0 * 30.0);
        println!("longest without a slot: {} ms; {:.0} % used", longest / 1000, used * 100.0);
        assert!(longest < ms(2_500), "{longest}");
        assert!(used > 0.9, "{used}");
    }
}

/// The longest that a proxy of these had no slot from here on.
fn longest_wait(world: &mut World, proxies: Range<usize>, until_ms: u64) -> u64 {
    let now = world.now;
    for node in &mut world.nodes {
        (node.served_at, node.longest_wait) = (now, 0);
    }
    world.run_until(ms(until_ms)).expect("the bound holds");
    let now = world.now;
    let waits = world.nodes[proxies].iter().map(|n| n.longest_wait.max(now - n.served_at));
    waits.max().expect("there are proxies") / 1000
}

/// Slots that do not come back are not reckoned with: those of a killed proxy until the longest
/// request has ended, and those of long requests.
#[test]
fn what_does_not_go_round_makes_nobodys_turn_longer() {
    for (seed, quantity, stays, killed) in
        [(1, 2, 1, true), (2, 2, 1, false), (3, 3, 2, false), (4, 7, 6, false), (5, 10, 8, false)]
    {
        let mut world = World::new(
            Plan {
                terms: Terms::slots(Duration::from_secs(30)),
                is_rate: false,
                quantity,
                end_ms: 60_000,
                ..plan(seed, &[0.0])
            },
            false,
        );
        world.nodes[0].demand = 60.0;
        world.nodes[0].stays = (stays, 60_000);
        world.run_until(ms(2_000)).unwrap();
        assert!(world.nodes[0].running.len() as u64 >= stays);
        let others = usize::from(killed)..8;
        world.nodes[others.clone()].iter_mut().for_each(|node| node.demand = 20.0);
        world.run_until(ms(4_000)).unwrap();
        if killed {
            // It has the one slot that it keeps, and the control plane knows that it gave the
            // other one back.
            let mut alone = 0;
            while alone < 40 {
                world.run_until(world.now + ms(10)).unwrap();
                alone = if world.nodes[0].usable(world.now) > 1 { 0 } else { alone + 1 };
            }
            world.nodes[0].is_up = false;
        }
        // What it has in reserve comes back first, and it shows what stays.
        world.run_until(ms(8_000)).unwrap();
        let longest = longest_wait(&mut world, others, 25_000);
        println!("{stays} of {quantity} stay: longest without a slot {longest} ms");
        assert!(longest < 2_500, "{stays} of {quantity}: {longest} ms");
    }
}

/// Requests that take longer than a turn are no reason to keep a slot.
#[test]
fn a_slot_goes_on_when_a_request_of_seconds_has_ended() {
    for (seed, quantity, service) in [(1, 1, 700), (2, 2, 700), (3, 2, 2_000), (4, 4, 2_000)] {
        let plan = Plan {
            terms: Terms::slots(Duration::from_secs(30)),
            is_rate: false,
            quantity,
            proxies: 6,
            service_ms: (service, service),
            end_ms: 90_000,
            ..plan(seed, &[5.0])
        };
        let mut world = World::new(plan, false);
        world.run_until(ms(10_000)).unwrap();
        let longest = longest_wait(&mut world, 0..6, 90_000);
        println!("{quantity} slots, requests of {service} ms: longest without a slot {longest} ms");
        // All have their turns one after the other.
        let round = 6_u64.div_ceil(quantity) * service;
        assert!(longest < round + round / 2 + 1_000, "{quantity} {service}: {longest}");
    }
}

/// Where a long request was, short ones of the same proxy do not stay for good.
#[test]
fn what_stayed_goes_round_again_when_it_has_ended() {
    let plan = Plan {
        terms: Terms::slots(Duration::from_secs(30)),
        is_rate: false,
        quantity: 2,
        end_ms: 40_000,
        ..plan(1, &[20.0])
    };
    let mut world = World::new(plan, false);
    world.nodes[..2].iter_mut().for_each(|node| node.stays = (1, 8_000));
    world.run_until(ms(8_000)).unwrap();
    assert_eq!(world.nodes.iter().map(|node| node.running.len()).sum::<usize>(), 2);
    world.run_until(ms(18_000)).unwrap();
    let longest = longest_wait(&mut world, 0..8, 40_000);
    println!("longest without a slot {longest} ms");
    assert!(longest < 2_500, "{longest} ms");
}

/// Proxies that need less than an even share keep what they need on average, and a part of a slot
/// of each is idle.
#[test]
fn slots_enough_for_all_are_used() {
    for (least, demands) in [
        (0.98, &[400.0, 400.0, 300.0, 300.0, 200.0, 200.0, 200.0, 200.0]),
        (0.9, &[400.0, 200.0, 200.0, 100.0, 100.0, 50.0, 20.0, 10.0]),
    ] {
        for (seed, report_every_ms) in [(1, 100), (2, 250)] {
            let mut world = World::new(
                Plan {
                    terms: Terms::slots(Duration::from_secs(30)),
                    is_rate: false,
                    quantity: 40,
                    report_every_ms,
                    ..plan(seed, demands)
                },
                false,
            );
            world.run_until(ms(3_000)).unwrap();
            let before = held(&world);
            world.run_until(ms(13_000)).unwrap();
            let used = (held(&world) - before) / (40.0 * 10.0);
            println!("{:.1} % of 40 slots used, by {demands:?}", used * 100.0);
            assert!(used > least, "{used}");
        }
    }
}

#[test]
fn killed_proxies_slots_come_back_after_lease_and_request_timeout() {
    let hold = Duration::from_secs(2);
    let plan = Plan {
        terms: Terms::slots(hold),
        is_rate: false,
        quantity: 8,
        proxies: 2,
        service_ms: (1_000, 1_900),
        end_ms: 20_000,
        ..plan(1, &[100.0, 100.0])
    };
    let mut world = World::new(plan, false);
    world.run_until(ms(5_000)).unwrap();
    assert_eq!(world.nodes[0].usable(world.now), 4);
    world.nodes[0].is_up = false;
    world.run_until(ms(5_000 + 2_700)).unwrap();
    assert_eq!(world.nodes[1].usable(world.now), 4, "they may be in use");
    world.run_until(ms(5_000 + 3_400)).unwrap();
    assert_eq!(world.nodes[1].usable(world.now), 8);
    assert_eq!(world.nodes[1].holder().remembered(), (8, 1), "it knows that it is alone");
}
