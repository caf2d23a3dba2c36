//! Backends whose verdict comes and goes.
//!
//! Each change of verdict moves connections, caches and load. A backend that changes again
//! and again does more harm than one that is down, so it is held down for a while: it
//! has a score, to which each change adds one, and of which half is gone after a minute.
//! One that goes down with a high score stays down for half a minute times its score, at
//! most five minutes. A restart is two changes, and too few for that.

use std::time::{Duration, Instant};

use crate::model::Health;

/// The score from which a backend that goes down is held there.
pub const THRESHOLD: f64 = 3.0;

const HALF_LIFE: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(30);
const HOLD_MAX: Duration = Duration::from_secs(300);

/// How often the verdict about one backend has changed lately, and the verdict that is
/// shown.
#[derive(Clone, Copy, Debug)]
pub struct Flap {
    shown: Health,
    score: f64,
    /// When the score was this.
    at: Instant,
    held_until: Option<Instant>,
}

impl Flap {
    /// A backend with a verdict, and no history.
    #[must_use]
    pub fn new(health: Health, now: Instant) -> Self {
        Self { shown: health, score: 0.0, at: now, held_until: None }
    }

    /// Takes in what the verdict would be, and returns what it is. To be called when that
    /// changes, and a few times a second while [`Self::held_until`] says something.
    ///
    /// `is_needed` tells that the backend is the last of its pool that could serve: it is
    /// not held down, nor held any longer.
    pub fn observe(&mut self, wanted: Health, is_needed: bool, now: Instant) -> Health {
        if is_needed || self.held_until.is_some_and(|until| now >= until) {
            self.held_until = None;
        }
        let is_held = self.held_until.is_some() && wanted == Health::Up;
        if wanted != self.shown && !is_held {
            // What was never known has not changed.
            if self.shown != Health::Unknown {
                self.score = self.score(now) + 1.0;
                self.at = now;
            }
            if wanted == Health::Down && self.score >= THRESHOLD && !is_needed {
                self.held_until = Some(now + HOLD.mul_f64(self.score).min(HOLD_MAX));
            }
            self.shown = wanted;
        }
        self.shown
    }

    /// The score at `now`.
    #[must_use]
    pub fn score(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        self.score * 0.5_f64.powf(age / HALF_LIFE.as_secs_f64())
    }

    /// Until when it is held down, if it is.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }
}
