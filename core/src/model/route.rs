//! A route: which requests go to which pool.

use std::{fmt, sync::Arc};

use super::{Invalid, ListenerName, RouteName, RoutePools, invalid::shorten};
use crate::routing::without_port;

/// Sends the requests that match to a pool, or shares them out among several.
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
    pub pools: RoutePools,
}

/// Which hosts a route matches. Exact beats wildcard, a longer wildcard a shorter
/// one, and any of them [`HostMatch::Any`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
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
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum PathMatch {
    /// The path and everything below it, by whole segments: `/api` matches `/api`
    /// and `/api/x`, not `/apis`.
    Prefix(Arc<str>),
    /// This path only.
    Exact(Arc<str>),
}

/// A part of a URL that is not in any path that routes see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unmatched {
    /// Begins with `?`.
    Query,
    /// Begins with `#`; browsers keep it to themselves, and proxies refuse it.
    Fragment,
}

impl Unmatched {
    /// For a sentence that says what a path has.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "a query",
            Self::Fragment => "a fragment",
        }
    }

    /// Its first character.
    #[must_use]
    pub fn begins_with(self) -> char {
        match self {
            Self::Query => '?',
            Self::Fragment => '#',
        }
    }
}

impl HostMatch {
    /// Reads `example.com`, `*.example.com`, or nothing for every host.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let host = Self::parse_stored(text)?;
        if host.has_port() {
            return Err(Invalid::value(
                "route.host",
                format!(
                    "host {:?} has a port; leave it out: a route matches a host at every port, and \
                     --listener tells ports apart",
                    shorten(text)
                ),
            ));
        }
        Ok(host)
    }

    /// Reads what a former build may have stored: also a host with a port, which matches
    /// nothing, as it always did.
    pub fn parse_stored(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text == "*" {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        // A name is the same with the dot of the root at its end. More of them match nothing.
        let lower = lower.trim_end_matches('.');
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (lower, false),
        };
        let fits = |b: u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'[' | b']' | b':')
        };
        if name.is_empty() || name.len() > 253 || !name.bytes().all(fits) {
            return Err(Invalid::value(
                "route.host",
                format!("host {:?} must be a name, *.NAME, or * for every host", shorten(text)),
            ));
        }
        Ok(if wildcard {
            Self::Suffix(format!(".{name}").into())
        } else {
            Self::Exact(name.into())
        })
    }
}

impl HostMatch {
    /// Whether it has a port, and so matches nothing.
    #[must_use]
    pub fn has_port(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Exact(name) | Self::Suffix(name) => {
                without_port(name.as_bytes()).len() < name.len()
            }
        }
    }

    /// Whether it matches a host that is in lower case and has no port.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host == &**name,
            Self::Suffix(suffix) => host.ends_with(&**suffix),
        }
    }
}

impl PathMatch {
    /// `exact` excludes `prefix`; neither means every path.
    pub fn parse(prefix: &str, exact: &str) -> Result<Self, Invalid> {
        let path = Self::parse_stored(prefix, exact)?;
        if let Some(stem) = path.before_star() {
            return Err(Invalid::value(
                "route.path",
                format!(
                    "path {:?} ends in '*', which stands for nothing else here: a path prefix has \
                     everything below it; write the path prefix {:?}",
                    shorten(if exact.is_empty() { prefix } else { exact }),
                    shorten(if stem.is_empty() { "/" } else { stem }),
                ),
            ));
        }
        match path.unmatched() {
            None => Ok(path),
            Some(unmatched) => Err(Invalid::value(
                "route.path",
                format!(
                    "path {:?} has {}, and would match nothing: paths are compared without; leave \
                     out everything from '{}' on",
                    shorten(if exact.is_empty() { prefix } else { exact }),
                    unmatched.name(),
                    unmatched.begins_with(),
                ),
            )),
        }
    }

    /// Reads what a former build may have stored: also a path with a query or a fragment, which
    /// matches nothing, or with a star as its last segment, which matches itself, as they always
    /// did.
    pub fn parse_stored(prefix: &str, exact: &str) -> Result<Self, Invalid> {
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

    /// What stands before a last segment of stars, which nobody means as it stands.
    fn before_star(&self) -> Option<&str> {
        let (Self::Prefix(path) | Self::Exact(path)) = self;
        path.strip_suffix("/*").or_else(|| path.strip_suffix("/**"))
    }

    /// What keeps it from matching any path.
    #[must_use]
    pub fn unmatched(&self) -> Option<Unmatched> {
        let (Self::Prefix(path) | Self::Exact(path)) = self;
        path.chars().find_map(|character| match character {
            '?' => Some(Unmatched::Query),
            '#' => Some(Unmatched::Fragment),
            _ => None,
        })
    }

    /// Whether it matches a path without its query.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(_) => path.strip_prefix(self.stem()).is_some_and(|rest| {
                self.stem().is_empty() || matches!(rest.as_bytes(), [] | [b'/', ..])
            }),
        }
    }

    /// The path, or the prefix without its final slash: `/api` and `/api/` are the same
    /// prefix, and that of everything is empty.
    #[must_use]
    pub fn stem(&self) -> &str {
        match self {
            Self::Exact(path) => path,
            Self::Prefix(prefix) => prefix.strip_suffix('/').unwrap_or(prefix),
        }
    }
}

impl Route {
    /// What it matches: two routes for which this is equal see the same requests.
    #[must_use]
    pub fn matched(&self) -> (&ListenerName, &HostMatch, bool, &str) {
        let exact = matches!(self.path, PathMatch::Exact(_));
        (&self.listener, &self.host, exact, self.path.stem())
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any host"),
            Self::Exact(host) => write!(f, "host {host}"),
            Self::Suffix(suffix) => write!(f, "host *{suffix}"),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "path {path}"),
            Self::Prefix(prefix) => write!(f, "path prefix {prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_whole_segments() {
        let prefix = PathMatch::parse("/api/", "").unwrap();
        for (path, expected) in
            [("/api", true), ("/api/", true), ("/api/x", true), ("/apis", false), ("/", false)]
        {
            assert_eq!(prefix.matches(path), expected, "{path}");
        }
        assert!(PathMatch::parse("", "").unwrap().matches("*"), "everything is everything");
    }

    #[test]
    fn a_path_with_a_query_or_a_fragment_would_never_match() {
        for (prefix, exact, why) in [
            ("/a?b", "", "has a query"),
            ("", "/?", "from '?' on"),
            ("/#top", "", "has a fragment"),
            ("", "/a#b?c", "from '#' on"),
        ] {
            let refused = PathMatch::parse(prefix, exact).unwrap_err();
            assert!(refused.message.contains(why), "{refused}");
            assert!(PathMatch::parse_stored(prefix, exact).is_ok(), "it may have been stored");
        }
        assert!(PathMatch::parse("/%3F%23", "").is_ok());
    }

    #[test]
    fn a_star_as_the_last_segment_is_told_what_it_means() {
        for (prefix, exact, write) in [
            ("/a/*", "", "the path prefix \"/a\""),
            ("", "/a/*", "the path prefix \"/a\""),
            ("/a/b/**", "", "the path prefix \"/a/b\""),
            ("/*", "", "the path prefix \"/\""),
        ] {
            let refused = PathMatch::parse(prefix, exact).unwrap_err();
            assert!(refused.message.ends_with(write), "{refused}");
            assert!(PathMatch::parse_stored(prefix, exact).is_ok(), "it may have been stored");
        }
        assert!(PathMatch::parse("/a*", "").is_ok());
        assert!(PathMatch::parse("/a/*/b", "").is_ok());
    }

    #[test]
    fn a_wildcard_needs_a_label() {
        let host = HostMatch::parse("*.Example.com").unwrap();
        assert!(host.matches("a.example.com") && host.matches("a.b.example.com"));
        assert!(!host.matches("example.com") && !host.matches("badexample.com"));
    }

    #[test]
    fn a_host_with_a_port_would_never_match() {
        assert!(HostMatch::parse("a:80").unwrap_err().message.contains("has a port"));
        assert!(HostMatch::parse("[::1]:80").is_err());
        assert!(HostMatch::parse("[::1]").unwrap().matches("[::1]"));
    }
}
