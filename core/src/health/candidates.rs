//! Who of a pool may be picked, from all that is known of its backends.
//!
//! What the operator wants, the verdicts, what traffic says and what one proxy sees by itself
//! come together here and nowhere else, so that whoever asks whether a pool can serve
//! hears what its requests will find.

use super::panic::{self, Judged, Panic};
use crate::model::{Backend, BackendEntry, BackendStatus, Health, Pool};

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
    /// It is picked before its first check, because nobody else may be: a pool that replaces
    /// another, or a server that has moved, would answer nothing until then. A server that is
    /// named is likely to be there, and a failure tells no less than a refusal.
    Untried,
    /// Requests are kept from it for what they showed; one may try it at times.
    Out,
    /// It gets none.
    Nowhere,
}

impl Place {
    /// Whether it is picked.
    #[must_use]
    pub fn is_candidate(self) -> bool {
        matches!(self, Self::Well | Self::Helping | Self::Untried)
    }
}

impl Candidates {
    /// Whether there is a candidate.
    #[must_use]
    pub fn any(&self) -> bool {
        self.places.iter().any(|place| place.is_candidate())
    }

    /// How many get requests for what is known of them, and not merely for want of others.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.iter().filter(|place| matches!(place, Place::Well | Place::Helping)).count()
    }

    /// How many of those are not well.
    #[must_use]
    pub fn helping(&self) -> usize {
        self.places.iter().filter(|place| **place == Place::Helping).count()
    }
}

/// What of a backend counts here, in a few bytes: whoever decides again and again for thousands of
/// which few change need not look into all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Whether the operator wants it to get new requests, and it is known where it is.
    pub is_in_use: bool,
    /// Whether its verdict is that it is up.
    pub is_up: bool,
    /// Whether the fleet keeps requests from it for what they showed.
    pub is_ejected: bool,
    /// Its verdict, as far as it says something.
    health: Health,
    /// Whether a probe that failed had connected.
    is_connected: bool,
    /// Whether it was never checked.
    is_untried: bool,
}

impl Facts {
    /// Of a backend with what is known about it.
    #[must_use]
    pub fn of(entry: &BackendEntry) -> Self {
        Self::told(&entry.backend, entry.status.as_ref())
    }

    /// The same, whoever keeps the two.
    #[must_use]
    pub fn told(backend: &Backend, status: Option<&BackendStatus>) -> Self {
        // Down from the beginning says as little as no check at all.
        let proved = status.filter(|status| status.was_up);
        Self {
            is_in_use: backend.is_in_use(status),
            is_up: status.is_some_and(|status| status.health == Health::Up),
            is_ejected: status.is_some_and(|status| status.standing.ejection.is_some()),
            health: proved.map_or(Health::Unknown, |status| status.health),
            is_connected: status.is_some_and(|status| panic::connected(&status.reason)),
            is_untried: status.is_none_or(|status| status.health == Health::Unknown),
        }
    }

    fn standing(self, is_out: bool) -> panic::Standing {
        panic::Standing { health: self.health, ejected: is_out, connected: self.is_connected }
    }

    fn is_well(self) -> bool {
        self.is_in_use && self.is_up && !self.is_ejected
    }
}

/// What [`by_the_fleet`] comes to for a pool, in numbers that follow each change of a backend:
/// whoever asks after every change whether a pool of thousands panics need not look at all of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    in_use: panic::Tally,
    /// Of [`is_well`].
    well: usize,
}

impl Tally {
    /// One backend more.
    pub fn add(&mut self, facts: Facts) {
        if facts.is_in_use {
            self.in_use.add(&facts.standing(facts.is_ejected));
        }
        self.well += usize::from(facts.is_well());
    }

    /// One backend less, of which the facts are those that it was added with.
    pub fn remove(&mut self, facts: Facts) {
        if facts.is_in_use {
            self.in_use.remove(&facts.standing(facts.is_ejected));
        }
        self.well -= usize::from(facts.is_well());
    }

    /// As [`any_well`].
    #[must_use]
    pub fn any_well(&self) -> bool {
        self.well > 0
    }

    /// How many backends [`by_the_fleet`] picks, and whether that is panic.
    #[must_use]
    pub fn judge(&self, pool: &Pool, has_spare: bool) -> Judged {
        match has_spare {
            true => self.in_use.judge_well(),
            false => self.in_use.judge(pool.resilience.panic_threshold_percent),
        }
    }
}

/// Decides for a pool of which these are the facts, in the order of its backends, each with
/// whether requests are kept from it for what they showed.
///
/// `has_spare`: the pool's fallback pool has a backend that is well ([`any_well`]). Whoever names a
/// spare pool wants it used when this one is not well, so there is no panic then: what is not
/// well gets nothing, and where nobody is, the requests go to the spare pool.
///
/// Where nobody may be picked, those may be that were never checked ([`tries_unchecked`]).
#[must_use]
pub fn of_facts(
    pool: &Pool,
    has_spare: bool,
    backends: impl Iterator<Item = (Facts, bool)>,
) -> Candidates {
    let mut places = Vec::with_capacity(backends.size_hint().0);
    let (mut numbers, mut standings): (Vec<usize>, Vec<panic::Standing>) = Default::default();
    let mut untried = Vec::new();
    for (number, (facts, is_out)) in backends.enumerate() {
        places.push(Place::Nowhere);
        if facts.is_in_use {
            numbers.push(number);
            standings.push(facts.standing(is_out));
            if facts.is_untried && !is_out {
                untried.push(number);
            }
        }
    }
    let eligible = if has_spare {
        // No panic at all then, not even where everybody is out.
        panic::well(&standings)
    } else {
        panic::eligible(&standings, pool.resilience.panic_threshold_percent)
    };
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
    if tries_unchecked(pool, has_spare) && !places.iter().any(|place| place.is_candidate()) {
        untried.into_iter().for_each(|number| places[number] = Place::Untried);
    }
    Candidates { places, panic: eligible.panic }
}

/// Whether backends of a pool that were never checked are tried where nobody else of it may be
/// picked: neither another pool nor an answer stands in, and its panic threshold is not 0.
#[must_use]
pub fn tries_unchecked(pool: &Pool, has_spare: bool) -> bool {
    !has_spare && pool.fallback.answer.is_none() && pool.resilience.panic_threshold_percent > 0
}

/// Decides by the fleet's word, whoever keeps the members of the pool. `has_spare` as for
/// [`of_facts`].
#[must_use]
pub fn by_the_fleet<'a>(
    pool: &Pool,
    has_spare: bool,
    members: impl Iterator<Item = (&'a Backend, Option<&'a BackendStatus>)>,
) -> Candidates {
    let entries = members.map(|(backend, status)| {
        let facts = Facts::told(backend, status);
        (facts, facts.is_ejected)
    });
    of_facts(pool, has_spare, entries)
}

/// Whether a backend is well by the fleet's word: wanted, up, and nothing against it. A pool that has
/// one can stand in for another. What a proxy sees by itself does not count, so all proxies come to
/// the same: it keeps requests from the last that serves only where a third pool stands in.
#[must_use]
pub fn any_well<'a>(
    mut members: impl Iterator<Item = (&'a Backend, Option<&'a BackendStatus>)>,
) -> bool {
    members.any(|(backend, status)| is_well(backend, status))
}

/// Whether a backend is well by the fleet's word.
#[must_use]
pub fn is_well(backend: &Backend, status: Option<&BackendStatus>) -> bool {
    Facts::told(backend, status).is_well()
}

/// Whether the fleet keeps requests from it for what they showed.
#[must_use]
pub fn is_ejected(entry: &BackendEntry) -> bool {
    entry.status.as_ref().is_some_and(|status| status.standing.ejection.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        AdminState, BackendId, EjectedBy, Ejection, Incarnation, PoolEntry, PoolName, Reason,
        Resource, Snapshot, Standing, Weight,
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
                weight: Weight::new(u32::from(letter != '0')).unwrap(),
                admin_state: match letter {
                    'x' => AdminState::Disabled,
                    _ => AdminState::Enabled,
                },
                incarnation: Incarnation(1),
                ..Backend::new(
                    id.clone(),
                    name.clone(),
                    if letter == 'a' { "app:80" } else { "10.0.0.1:80" }.parse().unwrap(),
                )
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

    /// `W` well, `h` helping, `o` out, `u` untried, `.` nowhere.
    fn places(letters: &str) -> String {
        let pool = pool(letters);
        let places = by_the_fleet(&pool.pool, false, pool.members()).places.into_iter();
        places
            .map(|place| match place {
                Place::Well => 'W',
                Place::Helping => 'h',
                Place::Out => 'o',
                Place::Untried => 'u',
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
            // Who was never checked is tried where nobody else may be.
            ("???", "uuu"),
            ("d?n?", ".u.u"),
            ("0?xa", ".u.."),
            ("U?", "W."),
            ("E?", "h."),
        ] {
            assert_eq!(places(letters), expected, "{letters}");
            let pool = pool(letters);
            assert_eq!(pool.can_serve(), expected.contains(['W', 'h']), "{letters}");
            let any = by_the_fleet(&pool.pool, false, pool.members()).any();
            assert_eq!(any, expected.contains(['W', 'h', 'u']), "{letters}");
        }
    }

    #[test]
    fn whoever_asks_says_who_is_out() {
        let pool = pool("UUE");
        let facts = pool.backends.values().map(|entry| Facts::of(entry)).enumerate();
        let told = facts.map(|(number, facts)| (facts, number == 0));
        let candidates = of_facts(&pool.pool, false, told);
        assert_eq!(candidates.places, [Place::Out, Place::Well, Place::Well]);
    }

    #[test]
    fn a_pool_that_has_a_spare_pool_uses_nobody_who_is_not_well() {
        for letters in ["UUU", "Uccd", "ccc", "c?", "???", "E", "EE", "nnn", "UUE", "dd", ""] {
            let pool = pool(letters);
            let spared = by_the_fleet(&pool.pool, true, pool.members());
            assert_eq!(spared.panic, None, "{letters}");
            let others = [Place::Helping, Place::Untried];
            assert!(!spared.places.iter().any(|place| others.contains(place)), "{letters}");
            let well = |places: &[Place]| {
                places.iter().map(|place| *place == Place::Well).collect::<Vec<_>>()
            };
            let alone = by_the_fleet(&pool.pool, false, pool.members());
            assert_eq!(well(&spared.places), well(&alone.places), "{letters}: the well stay");
            assert_eq!(any_well(pool.members()), letters.contains('U'), "{letters}");
        }
    }
}
