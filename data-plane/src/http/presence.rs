//! Whether a client is still there while its answer is on the way.

use std::task::{Context, Poll};

use super::stream::{Presence, Stream};
use crate::worker::Buffer;

/// What a client may say behind its request before that hides whether it leaves.
const AHEAD_MAX: usize = 16 * 1024;

/// Looks whether the client is still there. What it says meanwhile, the next request or an empty
/// line, is taken in: it would stand before the news that it says no more.
pub(super) fn look<S: Stream>(
    stream: &mut S,
    client_in: &mut Buffer,
    context: &mut Context<'_>,
) -> Presence {
    loop {
        match stream.presence(context) {
            Presence::Talking if client_in.data().len() < AHEAD_MAX => {}
            presence => return presence,
        }
        match client_in.poll_fill(stream, context) {
            Poll::Ready(Ok(0)) => return Presence::Finished,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return Presence::Reset,
            Poll::Pending => return Presence::There,
        }
    }
}
