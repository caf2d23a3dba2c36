//! Which route a request takes.
//!
//! Precedence: exact host, then the longest wildcard, then any host; within a host the
//! exact path, then the longest prefix. A host that matches but has no matching path
//! falls through to the next. Of two routes that match the same, the one whose name
//! comes first wins.
//!
//! [`RouteTable`] finds the route, [`explain()`] says why it was not another, and
//! [`obstacle()`] why one can never be it.

mod explain;
mod obstacle;
mod sessions;
mod table;
mod trie;

pub use self::{
    explain::{Explanation, Verdict, explain},
    obstacle::{Obstacle, obstacle},
    sessions::{Clash, clashes},
    table::RouteTable,
};

/// A host without its port; the brackets of an IPv6 address stay.
#[must_use]
pub fn without_port(host: &[u8]) -> &[u8] {
    let search_from = host.iter().position(|&byte| byte == b']').unwrap_or(0);
    let colon = host[search_from..].iter().position(|&byte| byte == b':');
    colon.map_or(host, |colon| &host[..search_from + colon])
}

/// The name that routes are looked up by: a host without its port, and without the dot of the root
/// at its end, which makes no other name of it.
#[must_use]
pub fn name_of(host: &[u8]) -> &[u8] {
    let name = without_port(host);
    name.strip_suffix(b".").unwrap_or(name)
}

/// A target without its query.
#[must_use]
pub fn path_of(target: &[u8]) -> &[u8] {
    target.split(|&byte| byte == b'?').next().unwrap_or_default()
}
