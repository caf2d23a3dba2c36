//! A route: which requests go to which pool.

use std::sync::Arc;

use super::{Invalid, ListenerName, PoolName, RouteName};

/// Sends the requests that match to a pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Unique among routes.
    pub name: RouteName,
    /// The listener whose requests it sees.
    pub listener: ListenerName,
    /// Which hosts.
    pub host: HostMatch,
    /// Which paths.
    pub path: PathMatch,
    /// Where they go.
    pub pool: PoolName,
}

/// Which hosts a route matches. Exact beats wildcard, a longer wildcard a shorter
/// one, and any of them [`HostMatch::Any`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HostMatch {
    /// Every host.
    Any,
    /// This one, in lower case.
    Exact(Arc<str>),
    /// Every name below this suffix, which begins with a dot: `*.example.com` is
    /// kept as `.example.com`.
    Suffix(Arc<str>),
}

/// Which paths a route matches. Exact beats prefix, a longer prefix a shorter one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathMatch {
    /// The path and everything below it, by whole segments: `/api` matches `/api`
    /// and `/api/x`, not `/apis`.
    Prefix(Arc<str>),
    /// This path only.
    Exact(Arc<str>),
}

impl HostMatch {
    /// Reads `example.com`, `*.example.com`, or nothing for every host.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text == "*" {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (lower.as_str(), false),
        };
        let fits = |b: u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'[' | b']' | b':')
        };
        if name.is_empty() || name.len() > 253 || !name.bytes().all(fits) {
            return Err(Invalid::value(
                "route.host",
                format!("host {:?} must be a name, *.NAME, or empty for every host", shorten(text)),
            ));
        }
        Ok(if wildcard {
            Self::Suffix(format!(".{name}").into())
        } else {
            Self::Exact(name.into())
        })
    }
}

impl PathMatch {
    /// `exact` excludes `prefix`; neither means every path.
    pub fn parse(prefix: &str, exact: &str) -> Result<Self, Invalid> {
        let check = |path: &str| {
            if path.starts_with('/')
                && path.len() <= 1024
                && path.bytes().all(|b| b.is_ascii_graphic())
            {
                Ok(())
            } else {
                Err(Invalid::value(
                    "route.path",
                    format!(
                        "path {:?} must begin with '/' and hold at most 1024 visible ASCII characters",
                        shorten(path)
                    ),
                ))
            }
        };
        match (prefix, exact) {
            ("", "") => Ok(Self::Prefix("/".into())),
            (prefix, "") => check(prefix).map(|()| Self::Prefix(prefix.into())),
            ("", exact) => check(exact).map(|()| Self::Exact(exact.into())),
            _ => Err(Invalid::value("route.path", "give a path or a path prefix, not both")),
        }
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}
