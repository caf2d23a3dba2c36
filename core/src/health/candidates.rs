//! Who of a pool may be picked, from all that is known of its backends.
//!
//! What the operator wants, the verdicts, what traffic says and what one proxy sees by itself
//! come together here and nowhere else, so that whoever asks whether a pool can serve
//! hears what its requests will find.

use super::panic::{self, Panic};
use crate::model::{BackendEntry, Health, PoolEntry};

/// The backends of a pool that may be picked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidates {
    /// For each backend of the pool, in their order.
    pub places: Vec<Place>,
    /// Why backends that are not well are among them.
    pub panic: Option<Panic>,
}

/// What becomes of one backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// It is picked: it is up, and nothing is against it.
    Well,
    /// It is picked although it is not well: few others are left.
    Helping,
    /// Requests are kept from it for what they showed; one may try it at times.
    Out,
    /// It gets none.
    Nowhere,
}

impl Place {
    /// Whether it is picked.
    #[must_use]
    pub fn is_candidate(self) -> bool {
        matches!(self, Self::Well | Self::Helping)
    }
}

impl Candidates {
    /// Whether there is a candidate.
    #[must_use]
    pub fn any(&self) -> bool {
        self.places.iter().any(|place| place.is_candidate())
    }
}

/// Decides for a pool. `is_out` tells of the backend at a place in their order whether
/// requests are kept from it for what they showed; by the fleet's word that is [`is_ejected`].
#[must_use]
pub fn of(pool: &PoolEntry, is_out: impl Fn(usize, &BackendEntry) -> bool) -> Candidates {
    let (numbers, standings): (Vec<usize>, Vec<panic::Standing>) = pool
        .backends
        .values()
        .enumerate()
        .filter(|(_, entry)| entry.is_in_use())
        .map(|(number, entry)| (number, standing(entry, is_out(number, entry))))
        .unzip();
    let threshold = pool.pool.resilience.panic_threshold_percent;
    let eligible = panic::eligible(&standings, threshold);
    let mut places = vec![Place::Nowhere; pool.backends.len()];
    for ((number, standing), candidate) in
        numbers.into_iter().zip(standings).zip(eligible.candidates)
    {
        let is_up = standing.health == Health::Up;
        places[number] = match (candidate, is_up, standing.ejected) {
            (true, true, false) => Place::Well,
            (true, ..) => Place::Helping,
            (false, true, true) => Place::Out,
            (false, ..) => Place::Nowhere,
        };
    }
    Candidates { places, panic: eligible.panic }
}

/// Whether the fleet keeps requests from it for what they showed.
#[must_use]
pub fn is_ejected(entry: &BackendEntry) -> bool {
    entry.status.as_ref().is_some_and(|status| status.standing.ejection.is_some())
}

fn standing(entry: &BackendEntry, is_out: bool) -> panic::Standing {
    let nothing = panic::Standing { health: Health::Unknown, ejected: false, connected: false };
    entry.status.as_ref().map_or(nothing, |status| panic::Standing {
        // Down from the beginning says as little as no check at all.
        health: if status.was_up { status.health } else { Health::Unknown },
        ejected: is_out,
        connected: panic::connected(&status.reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        AdminState, Backend, BackendId, BackendStatus, EjectedBy, Ejection, Incarnation, Labels,
        Pool, PoolName, Reason, Resource, Snapshot, Standing, Weight,
    };

    /// A pool by letters: `U` up, `E` up and ejected, `c` down but connected, `n` the same and
    /// never up, `d` down, `?` never checked, `0` up without weight, `x` up and disabled, `a` up
    /// without an address.
    fn pool(letters: &str) -> PoolEntry {
        let name = PoolName::default_pool();
        let mut resources = vec![Resource::Pool(Pool::new(name.clone()))];
        for (number, letter) in letters.chars().enumerate() {
            let id = BackendId::new(&format!("b{number}")).unwrap();
            resources.push(Resource::Backend(Backend {
                drain: None,
                max_in_flight: None,
                id: id.clone(),
                pool: name.clone(),
                address: "10.0.0.1:80".parse().unwrap(),
                weight: Weight::new(u32::from(letter != '0')).unwrap(),
                admin_state: match letter {
                    'x' => AdminState::Disabled,
                    _ => AdminState::Enabled,
                },
                labels: Labels::default(),
                source: None,
                incarnation: Incarnation(1),
            }));
            let code = if letter == 'd' { "backend_connect_refused" } else { "check_status" };
            let ejection = Ejection {
                by: EjectedBy::Breaker,
                is_half_open: false,
                open_for: std::time::Duration::from_secs(5),
                times: 1,
                reason: Reason::default(),
                since_unix_ms: 0,
            };
            let standing =
                Standing { ejection: (letter == 'E').then_some(ejection), ..Standing::default() };
            let address = (letter != 'a').then(|| ([10, 0, 0, 1], 80).into());
            resources.push(Resource::Status(BackendStatus {
                backend: id,
                incarnation: Incarnation(1),
                health: match letter {
                    'c' | 'n' | 'd' => Health::Down,
                    '?' => Health::Unknown,
                    _ => Health::Up,
                },
                addresses: address.into_iter().collect(),
                reason: Reason::new(code, ""),
                since_unix_ms: 0,
                was_up: !matches!(letter, 'n' | '?'),
                standing,
            }));
        }
        let (snapshot, rejected) = Snapshot::default().changed(resources, &[]);
        assert_eq!(rejected, []);
        PoolEntry::clone(&snapshot.pools()[&name])
    }

    /// `W` well, `h` helping, `o` out, `.` nowhere.
    fn places(letters: &str) -> String {
        let candidates = of(&pool(letters), |_, entry| is_ejected(entry));
        let places = candidates.places.into_iter();
        places
            .map(|place| match place {
                Place::Well => 'W',
                Place::Helping => 'h',
                Place::Out => 'o',
                Place::Nowhere => '.',
            })
            .collect()
    }

    #[test]
    fn what_may_be_picked_takes_everything_into_account() {
        for (letters, expected) in [
            ("UUU", "WWW"),
            ("U0xa", "W..."),
            ("UUE", "WWo"),
            ("E", "h"),
            ("UUcd", "WW.."),
            ("Uccd", "Whh."),
            // Never up: not even then, and no sign that the pool is in trouble.
            ("nnn", "..."),
            ("Unnnn", "W...."),
            ("Ucnnn", "W...."),
            ("c?", "h."),
        ] {
            assert_eq!(places(letters), expected, "{letters}");
            let serves = expected.contains(['W', 'h']);
            assert_eq!(pool(letters).can_serve(), serves, "{letters}");
        }
    }

    #[test]
    fn whoever_asks_says_who_is_out() {
        let pool = pool("UUE");
        let candidates = of(&pool, |number, _| number == 0);
        assert_eq!(candidates.places, [Place::Out, Place::Well, Place::Well]);
    }
}
