//! Whatever happens, it closes in the end.

use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever happened before: once the backend works and requests come, it closes.
    #[test]
    fn it_always_recovers(
        steps in prop::collection::vec((0_u8..7, 0_usize..3, 0_u64..20_000), 0..150),
    ) {
        let mut bench = Bench::new();
        let names = ["a", "b", "c"];
        let mut held: Vec<Option<TokenId>> = vec![None; 3];
        for (what, who, wait) in steps {
            bench.now += Duration::from_millis(wait);
            let name = names[who];
            match what {
                0 => drop(bench.hear(name, gateway(6), None)),
                1 => drop(bench.hear(name, served(6), None)),
                2 => {
                    bench.hear(name, Outcomes::default(), None);
                    let sent = bench.sent();
                    let token = bench.breaker.offer(&process(name), sent, false, bench.now);
                    held[who] = token.map(|token| token.id).or(held[who]);
                }
                3 | 4 => if let Some(id) = held[who].take_if(|_| what == 3) {
                    bench.word(name, id, ProbeState::Failed);
                } else if let Some(id) = held[who] {
                    bench.word(name, id, ProbeState::InUse);
                },
                5 => if let Some(id) = held[who].take() {
                    bench.word(name, id, ProbeState::Succeeded);
                },
                _ => {
                    held[who] = None;
                    bench.breaker.lost(&bench.policy, &process(name), bench.now, &mut bench.rng);
                }
            }
        }
        // From now on every token is used at once, and every probe succeeds.
        for round in 0..5_000 {
            if bench.is_closed() && round > 0 {
                break;
            }
            bench.wait(SECOND / 4);
            for name in names {
                if let Some(id) = bench.ask_freely(name) {
                    bench.word(name, id, ProbeState::Succeeded);
                }
            }
        }
        prop_assert!(bench.is_closed());
    }
}

impl Bench {
    /// A quiet report, whatever it changes, and the token in its answer.
    fn ask_freely(&mut self, name: &str) -> Option<TokenId> {
        self.hear(name, Outcomes::default(), None);
        self.breaker.offer(&process(name), self.sent(), false, self.now).map(|token| token.id)
    }
}
