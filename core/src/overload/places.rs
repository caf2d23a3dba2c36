//! How many connections there may be while memory is short.
//!
//! To let nobody in for a while, and then everybody who has come meanwhile, makes memory run
//! out again at once: the proxy would serve in bursts. So the number is held where memory
//! ran short: a new connection comes in when another one ends. Only when even that is too much
//! it becomes lower by a tenth, and requests on connections beyond it are refused; and again
//! with each reading at which memory has risen further, or is used up. What an allocator has
//! once taken it gives back late, and it is in use again soon: memory that does not rise is
//! no reason to serve ever fewer. It becomes a little higher as long as less is in use than half
//! way from this stage to the next one (92 %): a number that fell too far, say because a crowd
//! came at one moment, must not stay there although there is memory for more. Once the stage
//! is over, it grows by a tenth.
//!
//! A few connections are always let in: what they take is hardly what memory ran short of, and
//! a proxy that has next to none serves nobody and can never tell that it could.

use super::{Reading, Shedder, Stage};

/// What a reading takes from the bound that leads to refusing requests, one in so many.
const LESS: u64 = 10;
/// By which part memory must have risen to be higher than before.
const NOISE: u64 = 128;
/// What it adds while less memory is in use than it aims at.
const A_LITTLE_MORE: u64 = 50;
/// And once the stage is over.
const MORE: u64 = 10;
/// The bound is never below this, but for a configured one that is lower. Each costs some ten
/// kilobytes and at most a few hundred, of a process that needs megabytes to begin with.
const FEWEST: u64 = 16;

/// A bound on connections beside the configured one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Places {
    /// None in normal times.
    bound: Option<u64>,
    /// Memory in use when it was lowered last, while requests are refused.
    lowered_at: u64,
}

impl Places {
    /// How many connections there may be after this reading, which the shedder has taken:
    /// at most the limit of the reading, and at least 16 where that is not lower.
    pub fn observe(&mut self, shedder: &Shedder, reading: &Reading) -> u64 {
        let Reading { connections, memory } = *reading;
        if !shedder.stage.refuses_requests() {
            self.lowered_at = 0;
        }
        if shedder.holds_connections(reading) {
            let enters_at = |stage| {
                let [of_memory, _] = shedder.policy.bands(stage);
                of_memory.1.map_or(100, |band| band.enter_percent)
            };
            let refuses_at = enters_at(Stage::RefuseRequests);
            let aim = enters_at(Stage::RefuseConnections).midpoint(refuses_at);
            let present = connections.used.min(connections.limit);
            let held = self.bound.unwrap_or(present);
            let rises = memory.used > self.lowered_at + self.lowered_at / NOISE;
            let bound = if memory.reaches(refuses_at) && (rises || memory.reaches(100)) {
                self.lowered_at = memory.used;
                held.min(present) - held.min(present).div_ceil(LESS)
            } else if memory.reaches(aim) {
                held
            } else {
                (held + held.div_ceil(A_LITTLE_MORE)).min(connections.limit)
            };
            self.bound = Some(bound.max(FEWEST.min(connections.limit)));
        } else if let Some(bound) = self.bound {
            let grown = bound + bound.div_ceil(MORE);
            self.bound = (grown < connections.limit).then_some(grown);
        }
        self.bound.unwrap_or(connections.limit)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{Policy, Usage},
        *,
    };
    use crate::epoch;

    const TICK: Duration = Duration::from_millis(250);

    fn reading(memory: u64, connections: u64) -> Reading {
        let of_thousand = |used| Usage { used, limit: 1000 };
        Reading { connections: of_thousand(connections), memory: of_thousand(memory) }
    }

    /// A proxy whose memory is that of its connections, of which there are as many as it
    /// lets in: the share of memory in use after each reading, and how many served.
    fn under_siege(idle: u64, each_tenth: u64, ends_each: u64) -> Vec<(Stage, u64, u64)> {
        let (mut shedder, mut places) = (Shedder::new(Policy::default()), Places::default());
        let (mut open, mut now, mut bound) = (0_u64, epoch(), 1000);
        let mut seen = Vec::new();
        for _ in 0..4 * 60 {
            // Some end, and others come in their place if they may.
            let leaving = if open > bound { open / ends_each } else { 0 };
            open = if open > bound { (open - leaving).max(bound) } else { bound };
            let memory = idle + open * each_tenth / 10;
            let reading = reading(memory, open);
            shedder.observe(&reading, now);
            bound = places.observe(&shedder, &reading);
            now += TICK;
            seen.push((shedder.stage(), memory, open));
        }
        seen
    }

    /// Twice as many as memory has room for.
    #[test]
    fn memory_is_kept_in_use_and_not_exceeded() {
        let seen = under_siege(200, 16, 4);
        let settled = &seen[20..];
        let worst = settled.iter().map(|(_, memory, _)| *memory).max();
        assert!(worst < Some(1000), "{worst:?}");
        // At 95 % there would be 468.
        let served: u64 = settled.iter().map(|(.., open)| open).sum();
        assert!(served / settled.len() as u64 > 400, "{}", served / settled.len() as u64);
    }

    #[test]
    fn the_bound_is_that_of_normal_times_again_after_the_siege() {
        let (mut shedder, mut places) = (Shedder::new(Policy::default()), Places::default());
        let mut now = epoch();
        let mut bounds = |memory: u64, connections: u64, times: usize| -> Vec<u64> {
            (0..times)
                .map(|_| {
                    let reading = reading(memory, connections);
                    shedder.observe(&reading, now);
                    now += TICK;
                    places.observe(&shedder, &reading)
                })
                .collect()
        };
        assert_eq!(bounds(890, 600, 4), [1000; 4], "only idle ones are closed");
        assert_eq!(bounds(930, 600, 3), [600; 3], "it holds");
        assert_eq!(bounds(960, 600, 3), [540; 3], "once, unless it rises");
        assert_eq!(bounds(970, 540, 1), [486]);
        assert_eq!(bounds(1000, 480, 2), [432, 388]);
        assert_eq!(bounds(919, 380, 3), [396, 404, 413], "as long as there is room");
        // Whoever left meanwhile leaves room.
        let back = bounds(0, 100, 12);
        assert_eq!((back[0], back.last()), (422, Some(&1000)));
        assert!(back.is_sorted());
        assert_eq!(bounds(1000, 0, 100).last(), Some(&FEWEST), "somebody is always let in");
    }

    #[test]
    fn a_bound_that_is_low_already_is_not_made_lower() {
        for limit in [1, 3, FEWEST, FEWEST + 1] {
            let (mut shedder, mut places) = (Shedder::new(Policy::default()), Places::default());
            let mut now = epoch();
            for used in [0, 1, limit] {
                let memory = Usage { used: 1000, limit: 1000 };
                let reading = Reading { connections: Usage { used, limit }, memory };
                shedder.observe(&reading, now);
                now += TICK;
                let bound = places.observe(&shedder, &reading);
                assert!((FEWEST.min(limit)..=limit).contains(&bound), "{bound} of {limit}");
            }
        }
    }
}
