//! Requests to `/lb/...` on a proxy that exposes them.

use std::net::IpAddr;

use super::respond::OwnAnswer;
use crate::{h1::request::RequestHead, live::Management, reason::Reason};

/// Whether a path belongs to management.
pub(super) fn is_claimed(path: &[u8]) -> bool {
    path.starts_with(b"/lb/")
}

/// Refuses what the control plane should not even hear. Only processes on this machine may
/// change anything. Fields make nobody one of them; but a proxy on this machine that says, or
/// seems to, that it asks for somebody else is not.
pub(super) fn admit(
    management: &Management,
    head: &RequestHead<'_, '_>,
    peer: IpAddr,
) -> Result<(), OwnAnswer> {
    let reads = matches!(head.method_name, b"GET" | b"HEAD" | b"OPTIONS");
    if !reads && (!peer.to_canonical().is_loopback() || head.names_other_machine()) {
        return Err(OwnAnswer::new(
            403,
            Reason::ManagementForbidden,
            "changes through a proxy are taken from its own machine only, also when another proxy \
             there passes them on; send this from there, or use lbctl with the control plane's \
             address",
        ));
    }
    match management {
        Management::At(_) => Ok(()),
        Management::Away(why) => Err(OwnAnswer::new(503, Reason::ControlPlaneAway, &**why)),
    }
}

/// What a client is told when the control plane did not answer. `written` tells whether the
/// request may have reached it: then it may have been carried out, and the status must not
/// invite anybody to send it again.
pub(super) fn unanswered(answer: OwnAnswer, written: bool) -> OwnAnswer {
    let OwnAnswer { status, message, .. } = answer;
    let (status, next) = match written {
        false => (503, "start it again, then repeat the request"),
        true => (
            status,
            "the request may have been carried out, so see what is true now before it is repeated",
        ),
    };
    OwnAnswer::new(
        status,
        Reason::ControlPlaneAway,
        format!("the control plane does not answer: {message}. Traffic goes on without it; {next}"),
    )
}
