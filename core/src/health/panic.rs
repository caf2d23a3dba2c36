//! Which backends of a pool may be picked when few are well.
//!
//! Checks and breakers can be wrong together: a health page that asks a database that is
//! down, a prober in the wrong network. If less than half of a pool is left, the rest
//! would only be run over; so those are used too whose last probe at least *connected*:
//! a process is there, and some of its answers may be right. Where nobody would be left,
//! those that are out for what traffic showed come back: a chance is better than
//! a refusal. A pool whose fallback pool can serve needs neither
//! ([`of_facts`](super::candidates::of_facts)).

use crate::model::{Health, Reason};

/// What is known about one enabled backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// The verdict.
    pub health: Health,
    /// Whether its breaker or outlier detection keeps it out.
    pub ejected: bool,
    /// Whether its last probe connected: see [`connected`].
    pub connected: bool,
}

/// Which backends may be picked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Eligible {
    /// For each backend, in the order in which they were given.
    pub candidates: Vec<bool>,
    /// Why more of them may be than are well.
    pub panic: Option<Panic>,
}

/// Why backends that are not well are used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Panic {
    /// Fewer than the threshold are well.
    FewLeft {
        /// How many are up and not out.
        well: usize,
        /// How many the pool has that were ever checked.
        of: usize,
    },
    /// All that are up are out.
    AllEjected,
}

impl Panic {
    /// As it is spelled on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FewLeft { .. } => "few_left",
            Self::AllEjected => "all_ejected",
        }
    }
}

/// Whether a probe that failed for this reason had connected.
#[must_use]
pub fn connected(reason: &Reason) -> bool {
    matches!(reason.code.as_str(), "check_status" | "backend_timeout" | "backend_protocol_error")
}

/// What decides who of a pool may be picked, in numbers: of its backends that are enabled.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Up.
    up: usize,
    /// Up and not out.
    well: usize,
    /// Ever checked.
    of: usize,
    /// Down and not out, and their last probe connected.
    connected: usize,
}

/// What the numbers say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Judged {
    /// How many may be picked.
    pub candidates: usize,
    /// How many of those are well.
    pub well: usize,
    /// Why more of them may be than are well.
    pub panic: Option<Panic>,
    /// Whether those are used that are up and out.
    all_ejected: bool,
    /// Whether those are used that are down and connect.
    few: bool,
}

impl Tally {
    /// One backend more.
    pub fn add(&mut self, backend: &Standing) {
        self.numbers_of(backend).for_each(|number| *number += 1);
    }

    /// One backend less, which was added as it is told here.
    pub fn remove(&mut self, backend: &Standing) {
        self.numbers_of(backend).for_each(|number| *number -= 1);
    }

    /// The numbers that a backend counts for.
    fn numbers_of(&mut self, backend: &Standing) -> impl Iterator<Item = &mut usize> {
        let numbers = [
            (&mut self.up, backend.health == Health::Up),
            (&mut self.well, backend.is_well()),
            (&mut self.of, backend.health != Health::Unknown),
            (&mut self.connected, backend.helps()),
        ];
        numbers.into_iter().filter_map(|(number, counts)| counts.then_some(number))
    }

    /// Decides whether others than the well are used; see [`eligible`].
    #[must_use]
    pub fn judge(&self, threshold_percent: u8) -> Judged {
        let Self { up, well, of, connected } = *self;
        let all_ejected = well == 0 && up > 0;
        let left = if all_ejected { up } else { well };
        let few = left * 100 < usize::from(threshold_percent) * of;
        let candidates = left + if few { connected } else { 0 };
        let panic = match (candidates > well, all_ejected) {
            (false, _) => None,
            (true, true) => Some(Panic::AllEjected),
            (true, false) => Some(Panic::FewLeft { well, of }),
        };
        Judged { candidates, well, panic, all_ejected, few }
    }

    /// Nobody but the well is used; see [`well`].
    #[must_use]
    pub fn judge_well(&self) -> Judged {
        let well = self.well;
        Judged { candidates: well, well, panic: None, all_ejected: false, few: false }
    }
}

impl Standing {
    fn is_well(&self) -> bool {
        self.health == Health::Up && !self.ejected
    }

    /// Whether it is used where few others are left. What failed its check and its traffic has
    /// nothing to say for itself.
    fn helps(&self) -> bool {
        self.health == Health::Down && self.connected && !self.ejected
    }
}

/// Decides who may be picked; `threshold_percent` 0 never uses a backend that is not up.
///
/// Disabled and draining backends are not to be given. Backends that were never checked
/// are no sign of trouble, and count for nothing.
#[must_use]
pub fn eligible(backends: &[Standing], threshold_percent: u8) -> Eligible {
    let mut tally = Tally::default();
    backends.iter().for_each(|backend| tally.add(backend));
    let Judged { all_ejected, few, panic, .. } = tally.judge(threshold_percent);
    let fits = |backend: &Standing| {
        backend.is_well() || all_ejected && backend.health == Health::Up || few && backend.helps()
    };
    Eligible { candidates: backends.iter().map(fits).collect(), panic }
}

/// Those that are well, whatever that leaves: where another pool takes what nobody here may.
#[must_use]
pub fn well(backends: &[Standing]) -> Eligible {
    Eligible { candidates: backends.iter().map(Standing::is_well).collect(), panic: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `U` up, `E` up and ejected, `c` down but connected, `x` down and ejected though
    /// connected, `d` down, `?` unknown.
    fn pool(letters: &str) -> Vec<Standing> {
        letters
            .chars()
            .map(|letter| Standing {
                health: match letter {
                    'U' | 'E' => Health::Up,
                    '?' => Health::Unknown,
                    _ => Health::Down,
                },
                ejected: matches!(letter, 'E' | 'x'),
                connected: !matches!(letter, 'd' | '?'),
            })
            .collect()
    }

    fn picked(letters: &str, threshold: u8) -> String {
        let eligible = eligible(&pool(letters), threshold);
        let chosen = letters.chars().zip(eligible.candidates);
        chosen.filter(|(_, candidate)| *candidate).map(|(letter, _)| letter).collect()
    }

    #[test]
    fn those_that_connect_help_out_when_less_than_half_is_well() {
        for (letters, threshold, expected) in [
            ("UUcd", 50, "UU"),
            ("Uccd", 50, "Ucc"),
            ("Uccd", 25, "U"),
            ("cd", 50, "c"),
            ("dd", 50, ""),
            ("UEc", 50, "Uc"),
            ("Ucx", 50, "Uc"),
            // Closed on failure.
            ("Uccd", 0, "U"),
            ("ccd", 0, ""),
            // Traffic alone never empties a pool.
            ("EE", 50, "EE"),
            ("EEc", 0, "EE"),
            ("EEc", 50, "EE"),
            ("Eccc", 50, "Eccc"),
            ("EEd", 50, "EE"),
            ("Ed", 50, "E"),
            // A pool that fills has no trouble.
            ("U???", 50, "U"),
            ("????", 50, ""),
            ("", 50, ""),
        ] {
            assert_eq!(picked(letters, threshold), expected, "{letters} at {threshold}");
        }
    }

    #[test]
    fn panic_is_what_uses_others_than_the_well() {
        let panic = |letters| eligible(&pool(letters), 50).panic;
        assert_eq!(panic("UUcd"), None);
        assert_eq!(panic("Uccd"), Some(Panic::FewLeft { well: 1, of: 4 }));
        assert_eq!(panic("Uddd"), None, "nobody else connects");
        assert_eq!(panic("EE"), Some(Panic::AllEjected));
    }

    #[test]
    fn reasons_tell_whether_a_probe_connected() {
        for code in ["check_status", "backend_timeout", "backend_protocol_error"] {
            assert!(connected(&Reason::new(code, "")));
        }
        for code in ["backend_connect_refused", "backend_connect_timeout", "backend_reset"] {
            assert!(!connected(&Reason::new(code, "")));
        }
    }

    proptest! {
        #[test]
        fn a_pool_with_anybody_up_is_never_empty(
            letters in "[UEcxd?]{0,12}",
            threshold in 0_u8..=100,
        ) {
            let backends = pool(&letters);
            let eligible = eligible(&backends, threshold);
            let any_up = backends.iter().any(|backend| backend.health == Health::Up);
            prop_assert!(!any_up || eligible.candidates.contains(&true));
            for (backend, candidate) in backends.iter().zip(&eligible.candidates) {
                let well = backend.health == Health::Up && !backend.ejected;
                prop_assert!(*candidate || !well, "the well are always in");
                prop_assert!(!*candidate || backend.connected || well);
            }
        }

        /// What comes and goes leaves the numbers of what is there, and the numbers say what a
        /// look at each backend says.
        #[test]
        fn numbers_say_what_a_look_at_each_backend_says(
            letters in "[UEcxd?]{0,12}",
            gone in "[UEcxd?]{0,12}",
            threshold in 0_u8..=100,
        ) {
            let mut tally = Tally::default();
            pool(&gone).iter().for_each(|backend| tally.add(backend));
            pool(&letters).iter().for_each(|backend| tally.add(backend));
            pool(&gone).iter().rev().for_each(|backend| tally.remove(backend));
            let backends = pool(&letters);
            for (judged, Eligible { candidates, panic }) in [
                (tally.judge(threshold), eligible(&backends, threshold)),
                (tally.judge_well(), well(&backends)),
            ] {
                let count = candidates.iter().filter(|candidate| **candidate).count();
                prop_assert_eq!((judged.candidates, judged.panic), (count, panic));
                let well = letters.matches('U').count();
                prop_assert_eq!((judged.well, judged.panic.is_some()), (well, count > well));
            }
        }
    }
}
