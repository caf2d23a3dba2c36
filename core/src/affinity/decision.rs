//! Whether a client stays with its backend.

use std::time::Instant;

use super::cookie::{Refusal, Session};
use crate::{
    health::candidates::{Place, is_ejected},
    model::{AdminState, BackendEntry, Health, Incarnation},
};

/// What a request brought along.
#[derive(Clone, Copy, Debug)]
pub enum Presented {
    /// No cookie of the pool's name.
    Nothing,
    /// A genuine session.
    Session(Session),
    /// A cookie that is not believed.
    Refused(Refusal),
}

impl From<Result<Session, Refusal>> for Presented {
    fn from(verified: Result<Session, Refusal>) -> Self {
        verified.map_or_else(Self::Refused, Self::Session)
    }
}

/// The backend that a session names, as the proxy knows it at this moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BackendState {
    /// The caller's index, as picks return it.
    pub slot: u32,
    /// Which life of the id this is.
    pub incarnation: Incarnation,
    /// What the operator wants. A weight of 0 does not matter here: it takes no new
    /// clients, and keeps those it has.
    pub admin_state: AdminState,
    /// While it drains: when its sessions end; `None`, when it is empty.
    pub drain_deadline: Option<Instant>,
    /// Whether it could serve a request.
    pub fitness: Fitness,
}

/// Whether a backend could serve a request, whoever sends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fitness {
    /// It could.
    Fit,
    /// Its health verdict is against it, and the pool is not in panic mode.
    Down,
    /// Its breaker is open, or it was ejected as an outlier.
    Ejected,
    /// It has as many requests as it may have.
    AtCap,
}

impl Fitness {
    /// Of a backend that has this place among those that may be picked; caps are not known
    /// here. One that gets no new clients, because it drains or has no weight, has no place and
    /// is judged by what is known of it alone. `is_avoided`: one proxy keeps away from it.
    #[must_use]
    pub fn of(entry: &BackendEntry, place: Place, is_avoided: bool) -> Self {
        let is_left_out = entry.backend.admin_state == AdminState::Draining
            || (entry.backend.admin_state == AdminState::Enabled
                && entry.backend.weight.get() == 0);
        let has_address = !entry.backend.addresses(entry.status.as_ref()).is_empty();
        match place {
            Place::Well | Place::Helping | Place::Untried => Self::Fit,
            Place::Out => Self::Ejected,
            Place::Nowhere if is_ejected(entry) || is_avoided => Self::Ejected,
            Place::Nowhere if is_left_out && entry.health() == Health::Up && has_address => {
                Self::Fit
            }
            Place::Nowhere => Self::Down,
        }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// To the client's own backend, in this slot.
    Keep(u32),
    /// To whichever backend the pool's algorithm picks; the answer sets a cookie.
    New(NewReason),
    /// The same for this one request: the client's own backend, in this slot, has no room at
    /// the moment. The session stays with it, or every burst would scatter the clients for good.
    Elsewhere(u32),
    /// Nowhere: the pool is strict and the client's own backend cannot serve it. 503.
    Refuse {
        /// What is the matter with the backend.
        reason: NewReason,
        /// The backend never comes back: the answer ends the session
        /// ([`super::field::clear`]), so that the client can begin anew.
        ends_session: bool,
    },
}

/// Why a client does not stay.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum NewReason {
    /// It had no session.
    NoCookie,
    /// Its cookie is not believed.
    Refused(Refusal),
    /// The backend was removed, or belongs to another pool now.
    Gone,
    /// The backend was removed and another was added under its id.
    OtherIncarnation,
    /// The operator disabled it.
    Disabled,
    /// It was draining, and its sessions had their time.
    Drained,
    /// It is down.
    Down,
    /// It is ejected.
    Ejected,
    /// It has as many requests as it may have.
    AtCap,
}

/// What became of the session of a request, as it is counted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Met {
    /// It stayed with its backend.
    Kept,
    /// It was given another backend (at a cap for this one request only), or refused if the
    /// pool is strict.
    New(NewReason),
}

impl Met {
    /// Every one, each at the index of its counter.
    pub const ALL: [Self; 14] = [
        Self::Kept,
        Self::New(NewReason::NoCookie),
        Self::New(NewReason::Refused(Refusal::Malformed)),
        Self::New(NewReason::Refused(Refusal::UnknownKey)),
        Self::New(NewReason::Refused(Refusal::BadSignature)),
        Self::New(NewReason::Refused(Refusal::WrongPool)),
        Self::New(NewReason::Refused(Refusal::Expired)),
        Self::New(NewReason::Gone),
        Self::New(NewReason::OtherIncarnation),
        Self::New(NewReason::Disabled),
        Self::New(NewReason::Drained),
        Self::New(NewReason::Down),
        Self::New(NewReason::Ejected),
        Self::New(NewReason::AtCap),
    ];

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Kept => 0,
            Self::New(NewReason::NoCookie) => 1,
            Self::New(NewReason::Refused(Refusal::Malformed)) => 2,
            Self::New(NewReason::Refused(Refusal::UnknownKey)) => 3,
            Self::New(NewReason::Refused(Refusal::BadSignature)) => 4,
            Self::New(NewReason::Refused(Refusal::WrongPool)) => 5,
            Self::New(NewReason::Refused(Refusal::Expired)) => 6,
            Self::New(NewReason::Gone) => 7,
            Self::New(NewReason::OtherIncarnation) => 8,
            Self::New(NewReason::Disabled) => 9,
            Self::New(NewReason::Drained) => 10,
            Self::New(NewReason::Down) => 11,
            Self::New(NewReason::Ejected) => 12,
            Self::New(NewReason::AtCap) => 13,
        }
    }

    /// As metrics and the access log spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::New(reason) => reason.name(),
        }
    }
}

impl NewReason {
    /// As metrics and the access log spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoCookie => "no_cookie",
            Self::Refused(refusal) => refusal.name(),
            Self::Gone => "gone",
            Self::OtherIncarnation => "other_incarnation",
            Self::Disabled => "disabled",
            Self::Drained => "drained",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::AtCap => "at_cap",
        }
    }
}

/// Decides for a request of a pool with a cookie at `now`. `backend` is what the proxy
/// knows of the one that the session names; `None`: the pool has none of that id.
///
/// A draining backend keeps its clients up to its deadline, as long as it is fit: that is
/// what a drain is for. What is the matter for longest is named first: a backend that is
/// gone before one that is disabled, and that before one that is down.
#[must_use]
pub fn resolve(
    presented: &Presented,
    backend: Option<&BackendState>,
    strict: bool,
    now: Instant,
) -> Decision {
    let session = match presented {
        Presented::Nothing => return Decision::New(NewReason::NoCookie),
        Presented::Refused(refusal) => return Decision::New(NewReason::Refused(*refusal)),
        Presented::Session(session) => session,
    };
    match slot_of(session.incarnation(), backend, now) {
        Ok(slot) => Decision::Keep(slot),
        Err(NewReason::AtCap) if let Some(own) = backend => match strict {
            // It waits in line for its own.
            true => Decision::Keep(own.slot),
            false => Decision::Elsewhere(own.slot),
        },
        Err(reason) if strict => Decision::Refuse {
            reason,
            ends_session: matches!(reason, NewReason::Gone | NewReason::OtherIncarnation),
        },
        Err(reason) => Decision::New(reason),
    }
}

/// The backend's slot, if it is the one that is meant and may serve.
fn slot_of(
    incarnation: Incarnation,
    backend: Option<&BackendState>,
    now: Instant,
) -> Result<u32, NewReason> {
    let backend = backend.ok_or(NewReason::Gone)?;
    if backend.incarnation != incarnation {
        return Err(NewReason::OtherIncarnation);
    }
    match backend.admin_state {
        AdminState::Enabled => {}
        AdminState::Disabled => return Err(NewReason::Disabled),
        AdminState::Draining => {
            if backend.drain_deadline.is_some_and(|deadline| now >= deadline) {
                return Err(NewReason::Drained);
            }
        }
    }
    match backend.fitness {
        Fitness::Fit => Ok(backend.slot),
        Fitness::Down => Err(NewReason::Down),
        Fitness::Ejected => Err(NewReason::Ejected),
        Fitness::AtCap => Err(NewReason::AtCap),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn each_end_is_counted_at_its_own_place() {
        for (index, met) in Met::ALL.into_iter().enumerate() {
            assert_eq!(met.index(), index, "{}", met.name());
        }
    }

    use super::*;
    use crate::epoch;
    use crate::{
        affinity::{KeyId, KeyRing, SessionKey, Value},
        model::{BackendId, PoolName},
    };

    const FIT: BackendState = BackendState {
        slot: 3,
        incarnation: Incarnation(9),
        admin_state: AdminState::Enabled,
        drain_deadline: None,
        fitness: Fitness::Fit,
    };

    fn session() -> Presented {
        let ring = KeyRing::first(SessionKey::new(KeyId(1), [1; SessionKey::LEN]));
        let (pool, backend) = (PoolName::default_pool(), BackendId::new("backend1").unwrap());
        let ttl = Duration::from_secs(3600);
        let value = Value::sign(&ring, &pool, &backend, FIT.incarnation, 1_000, ttl);
        Session::verify(value.as_bytes(), &ring, &pool, 1_000, ttl).into()
    }

    #[test]
    fn a_client_stays_unless_its_backend_cannot_serve_it() {
        let now = epoch();
        let (before, after) = (now - Duration::from_secs(1), now + Duration::from_secs(1));
        let draining = BackendState { admin_state: AdminState::Draining, ..FIT };
        let fitness = |fitness| BackendState { fitness, ..FIT };
        for (backend, reason) in [
            (Some(FIT), None),
            (Some(draining), None),
            (Some(BackendState { drain_deadline: Some(after), ..draining }), None),
            (Some(BackendState { drain_deadline: Some(before), ..FIT }), None),
            (
                Some(BackendState { drain_deadline: Some(now), ..draining }),
                Some(NewReason::Drained),
            ),
            (Some(BackendState { fitness: Fitness::Down, ..draining }), Some(NewReason::Down)),
            (
                Some(BackendState { admin_state: AdminState::Disabled, ..fitness(Fitness::Down) }),
                Some(NewReason::Disabled),
            ),
            (Some(fitness(Fitness::Down)), Some(NewReason::Down)),
            (Some(fitness(Fitness::Ejected)), Some(NewReason::Ejected)),
            (
                Some(BackendState { incarnation: Incarnation(10), ..FIT }),
                Some(NewReason::OtherIncarnation),
            ),
            (None, Some(NewReason::Gone)),
        ] {
            let lenient = resolve(&session(), backend.as_ref(), false, now);
            let strict = resolve(&session(), backend.as_ref(), true, now);
            let Some(reason) = reason else {
                assert_eq!((lenient, strict), (Decision::Keep(3), Decision::Keep(3)));
                continue;
            };
            let ends_session = matches!(reason, NewReason::Gone | NewReason::OtherIncarnation);
            assert_eq!(lenient, Decision::New(reason));
            assert_eq!(strict, Decision::Refuse { reason, ends_session });
        }
    }

    #[test]
    fn a_client_whose_backend_has_no_room_waits_or_goes_elsewhere_once() {
        let full = BackendState { fitness: Fitness::AtCap, ..FIT };
        assert_eq!(resolve(&session(), Some(&full), false, epoch()), Decision::Elsewhere(3));
        assert_eq!(resolve(&session(), Some(&full), true, epoch()), Decision::Keep(3));
        // What lasts longer goes first.
        let gone = BackendState { admin_state: AdminState::Disabled, ..full };
        let moved = Decision::New(NewReason::Disabled);
        assert_eq!(resolve(&session(), Some(&gone), false, epoch()), moved);
    }

    #[test]
    fn a_strict_pool_refuses_nobody_who_has_no_session() {
        for refusal in Refusal::ALL {
            let decision = resolve(&Presented::Refused(refusal), Some(&FIT), true, epoch());
            assert_eq!(decision, Decision::New(NewReason::Refused(refusal)));
        }
        let decision = resolve(&Presented::Nothing, None, true, epoch());
        assert_eq!(decision, Decision::New(NewReason::NoCookie));
    }
}
