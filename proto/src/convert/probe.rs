//! Tokens for probes, and what became of them.

use std::time::Duration;

use lb_core::{
    model::{BackendId, Incarnation},
    resilience::probe::{ProbeState, ProbeToken, ProbeWord, TokenId},
};

use crate::v1 as pb;

/// Reads a token; which backend it is for is another matter.
pub fn probe_token_from_wire(wire: &pb::ProbeToken) -> ProbeToken {
    ProbeToken {
        id: TokenId { term: wire.term, sequence: wire.number },
        life: Duration::from_millis(wire.life_ms.into()),
    }
}

/// What a proxy says about a token for this backend.
#[must_use]
pub fn probe_word_to_wire(
    backend: &BackendId,
    incarnation: Incarnation,
    word: ProbeWord,
) -> pb::ProbeReport {
    let outcome = match word.state {
        ProbeState::InUse => pb::ProbeOutcome::Running,
        ProbeState::Succeeded => pb::ProbeOutcome::Succeeded,
        ProbeState::Failed => pb::ProbeOutcome::Failed,
    };
    pb::ProbeReport {
        backend: backend.to_string(),
        incarnation: incarnation.0,
        term: word.id.term,
        number: word.id.sequence,
        outcome: outcome.into(),
    }
}
