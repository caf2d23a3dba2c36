//! Request targets (RFC 9112, 3.2): what is asked for, and of whom.

use super::{BadRequest, bad};
use crate::h1::fields;

#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'b> {
    pub(super) path: &'b [u8],
    /// The path is empty: there is only a query.
    pub(super) only_query: bool,
    pub(super) authority: Option<&'b [u8]>,
}

impl<'b> Target<'b> {
    /// RFC 9112, 3.2.
    pub(super) fn parse(target: &'b [u8], method: &str) -> Result<Self, BadRequest> {
        // Some servers see blanks beyond ASCII, and with them another target.
        if !target.is_ascii() {
            return Err(bad("the target has characters beyond ASCII; write them as %XX"));
        }
        let of = |path, authority| Self { path, only_query: false, authority };
        if target.starts_with(b"/") {
            return if target.contains(&b'#') {
                Err(bad("the target has a fragment"))
            } else {
                Ok(of(target, None))
            };
        }
        if target == b"*" && method == "OPTIONS" {
            return Ok(of(target, None));
        }
        let rest = [&b"http://"[..], b"https://"]
            .iter()
            .find_map(|scheme| {
                let (start, rest) = target.split_at_checked(scheme.len())?;
                start.eq_ignore_ascii_case(scheme).then_some(rest)
            })
            .ok_or(bad("the target is neither a path nor an http URL"))?;
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if matches!(authority, [] | [b':', ..])
            || !fields::is_host(authority)
            || path.contains(&b'#')
        {
            return Err(bad("the authority of the target is malformed"));
        }
        match path.first() {
            Some(b'/') => Ok(of(path, Some(authority))),
            // An absolute OPTIONS without a path means the server (RFC 9112, 3.2.4).
            None if method == "OPTIONS" => Ok(of(b"*", Some(authority))),
            None => Ok(of(b"/", Some(authority))),
            // An empty path is sent as "/" (RFC 9112, 3.2.1).
            Some(_) => Ok(Self { path, only_query: true, authority: Some(authority) }),
        }
    }
}
