//! The one request that tests a backend whose breaker is half-open.
//!
//! The control plane gives one proxy a [`ProbeToken`] in its answer to one of that
//! proxy's reports. At most one such request is under way in the whole fleet, and that
//! must not rest on clocks that agree or on messages that arrive. So the life of a
//! token is counted, on both sides, from the moment at which the proxy *sent* the report
//! that was answered: by the proxy's own clock, which each report tells. A token that is
//! long on its way is dead on arrival; and the control plane knows that a token was not
//! used once it hears a report that was sent after its end and does not speak of it,
//! since a proxy speaks of a token that it has used until that was acknowledged.
//!
//! A proxy that does not report for longer than its lease is lost; what it may still be
//! doing is beyond anybody's control.

use std::time::{Duration, Instant};

/// How long a token may be used after the report that it answers was sent.
pub const TOKEN_LIFE: Duration = Duration::from_secs(2);

/// How long a request that was sent by a token may take until the head of its response. Then
/// it decides nothing any more, and another one may try: a backend whose answer takes longer
/// must not keep all others waiting.
pub const USE_MAX: Duration = Duration::from_secs(60);

/// The same for a request whose client was still sending when it was sent: it takes as long as
/// its client likes, which says nothing about the backend.
pub const UPLOAD_MAX: Duration = Duration::from_secs(5);

/// Which request may try a backend, the best first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fitness {
    /// It may be sent again elsewhere, so that nobody misses it if it fails.
    Repeatable,
    /// All of it is there: how long it takes is the backend's affair.
    Whole,
    /// Its client is still sending.
    Uploading,
}

impl Fitness {
    /// How long such a request leaves it to better ones.
    #[must_use]
    pub fn patience(self) -> Duration {
        match self {
            Self::Repeatable => Duration::ZERO,
            Self::Whole => TOKEN_LIFE / 2,
            Self::Uploading => TOKEN_LIFE * 3 / 4,
        }
    }

    /// For how long it keeps others from trying.
    #[must_use]
    pub fn lasts(self) -> Duration {
        match self {
            Self::Repeatable | Self::Whole => USE_MAX,
            Self::Uploading => UPLOAD_MAX,
        }
    }
}

/// Which token; none has the name of another.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TokenId {
    /// Which half-open time of the breaker.
    pub term: u64,
    /// Which token of it.
    pub sequence: u64,
}

/// Leave to send one request to a backend whose breaker is half-open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a token that is not sent delays the test of a backend"]
pub struct ProbeToken {
    /// Which.
    pub id: TokenId,
    /// How long it may be used after the report that it answers was sent.
    pub life: Duration,
}

/// What a proxy reports about a token, until that was acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProbeWord {
    /// Which.
    pub id: TokenId,
    /// What became of it.
    pub state: ProbeState,
}

/// What became of a token that was used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProbeState {
    /// Its request is under way.
    InUse,
    /// The backend answered with a status below 500.
    Succeeded,
    /// The request failed by anything else than its client.
    Failed,
}

/// The token that a proxy holds for one backend, if any.
#[derive(Clone, Debug, Default)]
pub struct HeldProbe {
    held: Held,
    /// The last token that came: an answer that comes twice is no second token.
    last: Option<TokenId>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Held {
    #[default]
    Nothing,
    Token {
        id: TokenId,
        until: Instant,
        life: Duration,
    },
    InUse {
        id: TokenId,
        /// Then it decides nothing any more.
        until: Instant,
    },
    Done {
        word: ProbeWord,
        /// The first report that told of it.
        told_in: Option<u64>,
    },
}

impl HeldProbe {
    /// Nothing is held.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a token that came in the answer to a report sent at `asked`. While a request
    /// is under way, no other is taken.
    pub fn receive(&mut self, token: ProbeToken, asked: Instant) {
        let is_new = self.last.is_none_or(|last| last < token.id);
        if is_new && !matches!(self.held, Held::InUse { .. }) {
            self.last = Some(token.id);
            let life = token.life;
            self.held = Held::Token { id: token.id, until: asked + life, life };
        }
    }

    /// Uses the token for one request, whose end [`Self::finish`] or [`Self::abandon`]
    /// must be told. Nothing when there is none, or it is too late; nor while there is time
    /// left for a better request to come.
    pub fn take(&mut self, request: Fitness, now: Instant) -> Option<TokenId> {
        let Held::Token { id, until, life } = self.held else { return None };
        if now + life.saturating_sub(request.patience()) < until {
            return None;
        }
        let in_time = now < until;
        let in_use = Held::InUse { id, until: now + request.lasts() };
        self.held = if in_time { in_use } else { Held::Nothing };
        in_time.then_some(id)
    }

    /// Tells how the request ended: as soon as the head of a response decides it.
    pub fn finish(&mut self, id: TokenId, succeeded: bool) {
        let state = if succeeded { ProbeState::Succeeded } else { ProbeState::Failed };
        if matches!(self.held, Held::InUse { id: held, .. } if held == id) {
            self.held = Held::Done { word: ProbeWord { id, state }, told_in: None };
        }
    }

    /// Gives the token up: the client went away before the backend had decided anything.
    /// Reports then no longer speak of it, and another request may try.
    pub fn abandon(&mut self, id: TokenId) {
        if matches!(self.held, Held::InUse { id: held, .. } if held == id) {
            self.held = Held::Nothing;
        }
    }

    /// What report number `report` says about it.
    pub fn word(&mut self, report: u64) -> Option<ProbeWord> {
        match &mut self.held {
            Held::Nothing | Held::Token { .. } => None,
            Held::InUse { id, .. } => Some(ProbeWord { id: *id, state: ProbeState::InUse }),
            Held::Done { word, told_in } => {
                told_in.get_or_insert(report);
                Some(*word)
            }
        }
    }

    /// Gives up a token that no request has used in time, and one whose request takes too
    /// long ([`Fitness::lasts`]).
    pub fn expire(&mut self, now: Instant) {
        let is_over = match self.held {
            Held::Token { until, .. } | Held::InUse { until, .. } => now >= until,
            Held::Nothing | Held::Done { .. } => false,
        };
        if is_over {
            self.held = Held::Nothing;
        }
    }

    /// Whether there is a token that a request may use.
    #[must_use]
    pub fn has_token(&self) -> bool {
        matches!(self.held, Held::Token { .. })
    }

    /// Whether there is nothing more to be said, and nothing to be used.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    /// Reports up to this one have been heard.
    pub fn acknowledge(&mut self, report: u64) {
        if matches!(self.held, Held::Done { told_in: Some(first), .. } if first <= report) {
            self.held = Held::Nothing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch;

    fn token(term: u64, sequence: u64) -> ProbeToken {
        ProbeToken { id: TokenId { term, sequence }, life: TOKEN_LIFE }
    }

    #[test]
    fn a_token_is_used_once_and_in_time() {
        let (start, mut held) = (epoch(), HeldProbe::new());
        assert_eq!(held.take(Fitness::Repeatable, start), None);
        held.receive(token(1, 1), start);
        assert_eq!(held.take(Fitness::Repeatable, start + TOKEN_LIFE), None, "too late");
        held.receive(token(1, 1), start);
        assert_eq!(held.take(Fitness::Repeatable, start), None, "the same answer again");
        held.receive(token(1, 2), start);
        assert_eq!(held.take(Fitness::Repeatable, start), Some(token(1, 2).id));
        assert_eq!(held.take(Fitness::Repeatable, start), None);
        held.receive(token(2, 1), start);
        assert_eq!(held.take(Fitness::Repeatable, start), None, "one is under way");
    }

    #[test]
    fn what_can_be_sent_again_comes_first() {
        let (start, mut held) = (epoch(), HeldProbe::new());
        held.receive(token(1, 1), start);
        assert_eq!(held.take(Fitness::Whole, start + TOKEN_LIFE / 3), None);
        assert_eq!(held.take(Fitness::Whole, start + TOKEN_LIFE / 2), Some(token(1, 1).id));
        held.abandon(token(1, 1).id);
        held.receive(token(1, 2), start);
        assert_eq!(
            held.take(Fitness::Uploading, start + TOKEN_LIFE * 3 / 4 - TOKEN_LIFE / 100),
            None
        );
        assert_eq!(held.take(Fitness::Uploading, start + TOKEN_LIFE * 3 / 4), Some(token(1, 2).id));
        assert!(!held.has_token() && !held.is_idle());
        held.expire(start + TOKEN_LIFE);
        assert!(!held.is_idle(), "it is in use");
    }

    #[test]
    fn a_token_that_nobody_used_is_given_up() {
        let (start, mut held) = (epoch(), HeldProbe::new());
        held.receive(token(1, 1), start);
        held.expire(start + TOKEN_LIFE / 2);
        assert!(held.has_token());
        held.expire(start + TOKEN_LIFE);
        assert!(held.is_idle());
    }

    #[test]
    fn a_request_that_takes_too_long_decides_nothing() {
        let (start, mut held) = (epoch(), HeldProbe::new());
        held.receive(token(1, 1), start);
        let used = start + TOKEN_LIFE / 2;
        let id = held.take(Fitness::Repeatable, used).unwrap();
        held.expire(used + USE_MAX - Duration::from_millis(1));
        assert!(held.word(1).is_some());
        held.expire(used + USE_MAX);
        assert_eq!(held.word(2), None);
        held.finish(id, false);
        assert!(held.is_idle(), "it comes too late");
        held.receive(token(1, 2), used + USE_MAX);
        // One whose client may never end gives way much sooner.
        let used = used + USE_MAX + TOKEN_LIFE * 3 / 4;
        held.take(Fitness::Uploading, used).unwrap();
        held.expire(used + UPLOAD_MAX);
        assert!(held.is_idle());
    }

    #[test]
    fn what_became_of_it_is_said_until_it_was_heard() {
        let (start, mut held) = (epoch(), HeldProbe::new());
        let id = token(1, 1).id;
        held.receive(token(1, 1), start);
        assert_eq!(held.word(7), None);
        held.take(Fitness::Repeatable, start);
        assert_eq!(held.word(8), Some(ProbeWord { id, state: ProbeState::InUse }));
        held.finish(token(0, 9).id, false);
        held.finish(id, true);
        held.acknowledge(8);
        let done = Some(ProbeWord { id, state: ProbeState::Succeeded });
        assert_eq!((held.word(9), held.word(10)), (done, done));
        held.acknowledge(8);
        assert_eq!(held.word(11), done, "8 did not tell of it");
        held.acknowledge(10);
        assert_eq!(held.word(12), None);
    }

    #[test]
    fn a_client_that_leaves_says_nothing_about_the_backend() {
        let (start, mut held) = (epoch(), HeldProbe::new());
        held.receive(token(1, 1), start);
        let id = held.take(Fitness::Repeatable, start).unwrap();
        held.abandon(id);
        assert_eq!((held.word(1), held.take(Fitness::Repeatable, start)), (None, None));
    }
}
