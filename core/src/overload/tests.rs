//! The order of the stages, their hysteresis, and that they are always left again.

use proptest::prelude::*;

use super::*;
use crate::epoch;

const TICK: Duration = Duration::from_millis(250);

/// With dwells that are long beside a tick, so that they can be told apart.
fn policy() -> Policy {
    Policy { dwell: Duration::from_secs(5), ..Policy::default() }
}

/// Memory and connections in use, in thousandths of their limits.
fn reading(memory: u64, connections: u64) -> Reading {
    let of_thousand = |used| Usage { used, limit: 1000 };
    Reading { connections: of_thousand(connections), memory: of_thousand(memory) }
}

/// The stage after each of the readings, a tick apart.
fn stages(shedder: &mut Shedder, start: Instant, readings: &[Reading]) -> Vec<Stage> {
    let mut now = start;
    let mut observe = |reading| {
        let before = shedder.stage();
        let change = shedder.observe(reading, now);
        now += TICK;
        let expected = (before != shedder.stage()).then_some((before, shedder.stage()));
        assert_eq!(change.map(|change| (change.from, change.to)), expected);
        assert_eq!(shedder.cause().is_none(), shedder.stage() == Stage::Normal);
        shedder.stage()
    };
    readings.iter().map(&mut observe).collect()
}

#[test]
fn stages_come_and_go_one_by_one() {
    let mut shedder = Shedder::new(policy());
    let full = [reading(1000, 0); 4];
    let [_, idle, connections, requests] = Stage::ALL;
    assert_eq!(stages(&mut shedder, epoch(), &full), [idle, connections, requests, requests]);
    // Twenty ticks are a dwell, that of each stage; requests are not refused for as long.
    let later = epoch() + Duration::from_secs(60);
    let press = [reading(900, 0), reading(900, 0)];
    let back = stages(&mut shedder, later, &[&press[..], &[reading(0, 0); 42]].concat());
    let lengths: Vec<_> = back.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
    assert_eq!(lengths, [(requests, 2), (connections, 20), (idle, 1), (Stage::Normal, 21)]);
}

#[test]
fn each_resource_leads_to_its_stages_and_is_named() {
    let of = |readings: &[Reading]| {
        let mut shedder = Shedder::new(policy());
        stages(&mut shedder, epoch(), readings);
        (shedder.stage(), shedder.cause().map(|cause| cause.to_string()))
    };
    let said = |text: &str| Some(text.to_owned());
    for (memory, connections, stage, cause) in [
        (799, 899, Stage::Normal, None),
        (800, 0, Stage::CloseIdle, said("800 of 1000 bytes of memory are in use (80 %)")),
        (0, 900, Stage::CloseIdle, said("900 of 1000 connections are in use (90 %)")),
        (0, 1000, Stage::RefuseConnections, said("1000 of 1000 connections are in use (100 %)")),
        (950, 0, Stage::RefuseRequests, said("950 of 1000 bytes of memory are in use (95 %)")),
        (850, 1000, Stage::RefuseConnections, said("1000 of 1000 connections are in use (100 %)")),
    ] {
        assert_eq!(of(&[reading(memory, connections); 9]), (stage, cause));
    }
    let unlimited = Usage { used: u64::MAX, limit: 0 };
    let unlimited = Reading { connections: unlimited, memory: unlimited };
    assert_eq!(of(&[unlimited; 9]).0, Stage::Normal);
}

/// What the milder stage waits for may last when the graver one is over.
#[test]
fn each_stage_waits_for_its_own_threshold() {
    let mut shedder = Shedder::new(policy());
    stages(&mut shedder, epoch(), &[reading(1000, 0); 4]);
    let later = epoch() + Duration::from_secs(60);
    // Below 85 % from the first, below 75 % from the eleventh.
    let readings = [&[reading(800, 0); 10][..], &[reading(0, 0); 30]].concat();
    let back = stages(&mut shedder, later, &readings);
    let lengths: Vec<_> = back.chunk_by(|a, b| a == b).map(|run| run.len()).collect();
    assert_eq!(lengths, [20, 10, 10], "{back:?}");
}

#[test]
fn one_reading_above_begins_the_dwell_anew() {
    let mut shedder = Shedder::new(policy());
    let calm = [reading(749, 0); 19];
    let readings = [&[reading(800, 0)], &calm[..], &[reading(750, 0)], &calm, &calm[..2]].concat();
    let stages = stages(&mut shedder, epoch(), &readings);
    let left = stages.iter().position(|stage| *stage == Stage::Normal);
    assert_eq!(left, Some(1 + 19 + 1 + 20));
}

#[test]
fn policies_without_hysteresis_or_order_are_refused() {
    let policy = Policy::default();
    assert_eq!(policy.checked(), Ok(policy));
    let band = |enter_percent, leave_percent| Band { enter_percent, leave_percent };
    let [first, second, _] = policy.memory;
    for (policy, field) in [
        (Policy { memory: [first, second, band(95, 95)], ..policy }, "proxy.overload_memory"),
        (Policy { memory: [first, second, band(101, 95)], ..policy }, "proxy.overload_memory"),
        (Policy { memory: [first, second, band(89, 86)], ..policy }, "proxy.overload_memory"),
        (Policy { memory: [first, second, band(95, 84)], ..policy }, "proxy.overload_memory"),
        (
            Policy { connections: [band(90, 80), band(80, 70)], ..policy },
            "proxy.overload_connections",
        ),
        (Policy { dwell: Duration::ZERO, ..policy }, "proxy.overload_dwell"),
        (Policy { dwell: Duration::from_secs(301), ..policy }, "proxy.overload_dwell"),
    ] {
        assert_eq!(policy.checked().unwrap_err().field, field);
    }
}

#[test]
fn clients_are_not_told_to_come_back_together_nor_too_early() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut waits: Vec<_> = (0..1000).map(|_| policy().retry_after(&mut rng).as_secs()).collect();
    waits.sort_unstable();
    waits.dedup();
    assert_eq!(waits, [5, 6, 7, 8, 9, 10]);
}

/// Idle connections pile up again as often as they are closed; what works never suffers.
#[test]
fn shedding_what_is_idle_is_enough_where_it_is_the_idle_that_is_too_much() {
    let mut shedder = Shedder::new(policy());
    let (mut idle, mut now, mut changes) = (0, epoch(), 0);
    for _ in 0..4 * 600 {
        let stage = shedder.stage();
        idle = if stage.closes_idle() { 0 } else { (idle + 10).min(350) };
        let change = shedder.observe(&reading(100, 600 + idle), now);
        changes += u32::from(change.is_some());
        assert!(!shedder.stage().refuses_connections());
        now += TICK;
    }
    // Closed at 900 after 7.5 s, left after 5 s of calm.
    assert!((80..=110).contains(&changes), "{changes} in ten minutes");
}

#[test]
fn by_default_everything_is_over_within_two_seconds() {
    let mut shedder = Shedder::new(Policy::default());
    stages(&mut shedder, epoch(), &[reading(1000, 1000); 4]);
    let mut rng = fastrand::Rng::with_seed(1);
    let policy = Policy::default();
    let waits: Vec<_> = (0..1000).map(|_| policy.retry_after(&mut rng).as_secs()).collect();
    assert_eq!((waits.iter().min(), waits.iter().max()), (Some(&1), Some(&5)));
    let stages = stages(&mut shedder, epoch() + Duration::from_secs(60), &[reading(0, 0); 4]);
    assert_eq!(stages.last(), Some(&Stage::Normal), "{stages:?}");
}

#[test]
fn only_memory_holds_up_who_would_find_a_place() {
    let full = reading(0, 1000);
    let mut shedder = Shedder::new(policy());
    stages(&mut shedder, epoch(), &[full; 4]);
    assert!(shedder.stage().refuses_connections() && !shedder.holds_connections(&full));
    // Memory keeps the stage although connections led to it.
    assert!(shedder.holds_connections(&reading(850, 1000)));
    let mut shedder = Shedder::new(policy());
    stages(&mut shedder, epoch(), &[reading(900, 0); 4]);
    // Until the stage is left, however little is in use by now.
    assert!(shedder.holds_connections(&reading(0, 0)));
}

#[test]
fn as_many_idle_connections_are_too_many_as_are_above_the_lower_threshold() {
    let mut shedder = Shedder::new(policy());
    assert_eq!(shedder.surplus(&reading(1000, 1000)), 0, "nothing is closed in normal times");
    stages(&mut shedder, epoch(), &[reading(0, 900)]);
    let few = Reading { connections: Usage { used: 3, limit: 3 }, ..Reading::default() };
    let surplus = |reading: &Reading| shedder.surplus(reading);
    assert_eq!([surplus(&reading(0, 950)), surplus(&reading(0, 700)), surplus(&few)], [151, 0, 1]);
    assert_eq!(surplus(&reading(750, 700)), u64::MAX);
}

fn readings(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Reading>> {
    // Often near the thresholds, and some that stay for long.
    let level = prop_oneof![0_u64..=1200, 740_u64..=1000];
    let run = ((level.clone(), level), 1_usize..30)
        .prop_map(|((memory, connections), ticks)| vec![reading(memory, connections); ticks]);
    prop::collection::vec(run, count).prop_map(|runs| runs.concat())
}

proptest! {
    #[test]
    fn no_stage_is_ever_skipped(readings in readings(0..30)) {
        let mut shedder = Shedder::new(policy());
        let mut before = Stage::Normal;
        for stage in stages(&mut shedder, epoch(), &readings) {
            prop_assert!((before as usize).abs_diff(stage as usize) <= 1);
            before = stage;
        }
    }

    /// Whatever happened, a quiet dwell and three readings bring everything back.
    #[test]
    fn always_recovers(readings in readings(0..30), memory in 0_u64..750, connections in 0_u64..800) {
        let mut shedder = Shedder::new(policy());
        let start = epoch();
        stages(&mut shedder, start, &readings);
        let quiet = vec![reading(memory, connections); 20 + 3];
        let later = start + TICK * u32::try_from(readings.len()).unwrap();
        let stages = stages(&mut shedder, later, &quiet);
        prop_assert_eq!(stages.last(), Some(&Stage::Normal));
    }

    /// At a load that stays within less than the width of a band, whatever was before, the
    /// stage only rises or only falls, and then stays.
    #[test]
    fn a_steady_load_does_not_flap(
        before in readings(0..20),
        memory in 0_u64..=1000,
        connections in 0_u64..=1000,
        noise in prop::collection::vec((0_u64..50, 0_u64..50), 200),
    ) {
        let mut shedder = Shedder::new(policy());
        let start = epoch();
        stages(&mut shedder, start, &before);
        let steady: Vec<_> =
            noise.iter().map(|(m, c)| reading(memory + m, connections + c)).collect();
        let later = start + TICK * u32::try_from(before.len()).unwrap();
        let stages = stages(&mut shedder, later, &steady);
        prop_assert!(stages.is_sorted() || stages.iter().rev().is_sorted(), "{stages:?}");
    }

    /// Who is worse off all along is never at a milder stage.
    #[test]
    fn more_load_never_sheds_less(
        readings in readings(0..30),
        more in prop::collection::vec((0_u64..200, 0_u64..200), 900),
    ) {
        let worse: Vec<_> = readings
            .iter()
            .zip(&more)
            .map(|(r, (m, c))| reading(r.memory.used + m, r.connections.used + c))
            .collect();
        let start = epoch();
        let mild = stages(&mut Shedder::new(policy()), start, &readings);
        let grave = stages(&mut Shedder::new(policy()), start, &worse);
        prop_assert!(mild.iter().zip(&grave).all(|(mild, grave)| mild <= grave));
    }

    /// Closing as many as are too many is enough, and closing one less is not.
    #[test]
    fn the_stage_is_left_once_the_surplus_is_closed(limit in 1_u64..5000, over in 0_u64..100) {
        let mut shedder = Shedder::new(policy());
        let used = limit + over;
        let reading =
            |used| Reading { connections: Usage { used, limit }, ..Reading::default() };
        shedder.observe(&reading(used), epoch());
        prop_assert_eq!(shedder.stage(), Stage::CloseIdle);
        let enough = used - shedder.surplus(&reading(used));
        prop_assert!(shedder.presses(&reading(enough + 1), Stage::CloseIdle));
        let calm = vec![reading(enough); 100];
        let calm = stages(&mut shedder, epoch(), &calm);
        prop_assert_eq!(calm.last(), Some(&Stage::Normal));
    }

    /// A clock that stands still or jumps does no harm.
    #[test]
    fn any_clock_will_do(readings in readings(0..10), jumps in prop::collection::vec(-5_i32..60, 300)) {
        let mut shedder = Shedder::new(policy());
        let start = epoch() + Duration::from_secs(3600);
        for (reading, jump) in readings.iter().zip(jumps) {
            let by = Duration::from_secs(u64::from(jump.unsigned_abs()));
            shedder.observe(reading, if jump < 0 { start - by } else { start + by });
        }
        let calm = stages(&mut shedder, start + Duration::from_secs(120), &[reading(0, 0); 100]);
        prop_assert_eq!(calm.last(), Some(&Stage::Normal));
    }
}
