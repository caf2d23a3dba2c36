//! Whether a client stays with the backend that it was first sent to.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc, time::Duration};

use super::{Invalid, invalid::shorten};

/// What keeps a client with its backend.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Affinity {
    /// Nothing: every request is picked for anew.
    #[default]
    None,
    /// A signed cookie that names the backend ([`crate::affinity`]); it holds on every
    /// proxy, and whatever else is changed in the pool.
    Cookie(CookieAffinity),
    /// A field of the request: the same value goes to the same backend, by a Maglev table
    /// ([`crate::balance::HashKey::Value`]). Some clients move when the backends change.
    /// Requests without the field are picked for by the pool's algorithm.
    Header(HeaderAffinity),
}

impl Affinity {
    /// How it is spelled, in the order in which help texts list it.
    pub const FORMS: [&str; 3] = ["none", "cookie", "header:NAME"];

    /// The policy of its cookie, if it has one.
    #[must_use]
    pub fn cookie(&self) -> Option<&CookieAffinity> {
        match self {
            Self::Cookie(policy) => Some(policy),
            Self::None | Self::Header(_) => None,
        }
    }
}

impl fmt::Display for Affinity {
    /// As the command line and declared state spell it, without the settings of a cookie.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Cookie(_) => f.write_str("cookie"),
            Self::Header(header) => write!(f, "header:{}", header.name()),
        }
    }
}

impl FromStr for Affinity {
    type Err = Invalid;

    /// A cookie has every default.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "" | "none" => Ok(Self::None),
            "cookie" => Ok(Self::Cookie(CookieAffinity::default())),
            _ => match text.strip_prefix("header:") {
                Some(name) => HeaderAffinity::new(name).map(Self::Header),
                None => Err(Invalid::unknown(
                    "pool.sticky",
                    "unknown_affinity",
                    format!(
                        "unknown affinity {:?}; known are {}",
                        shorten(text),
                        Self::FORMS.join(", ")
                    ),
                )),
            },
        }
    }
}

/// The cookie of a pool and how it is sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CookieAffinity {
    /// Its name, a token (RFC 6265, 4.1.1) of at most 255 bytes; default `lb_session`.
    /// Pools that share a host need names or paths of their own: a browser keeps one
    /// cookie of a name and path, so that they would take it from each other.
    pub name: Arc<str>,
    /// How long a session lives without a request; default 3600 s.
    pub ttl: Duration,
    /// Under which browsers send it; default `/`, the whole site.
    pub path: Arc<str>,
    /// Which sites' pages may cause it to be sent; default `Lax`.
    pub same_site: SameSite,
    /// When it is marked `Secure`; default on connections with TLS.
    pub secure: Secure,
    /// Whether scripts are kept from it; default true.
    pub http_only: bool,
    /// Whether a client is refused (503) rather than sent to another backend when its own
    /// cannot serve it; default false. For applications that keep state in a backend and
    /// would rather fail than lose it unnoticed.
    pub strict: bool,
}

impl CookieAffinity {
    /// The default of [`Self::name`].
    pub const NAME: &str = "lb_session";
    /// The default of [`Self::ttl`].
    pub const TTL: Duration = Duration::from_secs(3600);
    /// What [`Self::ttl`] may be; a week is what ALB allows. Old keys are kept as long.
    pub const TTLS: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
    /// The default of [`Self::path`].
    pub const PATH: &str = "/";
    /// The longest name and the longest path, in bytes.
    pub const TEXT_MAX: usize = 255;

    /// Checks that the name is a token, the TTL a number of whole seconds (cookies know
    /// no parts of them) from 1 s to 7 days, and that the path begins with `/` and holds
    /// at most 255 visible ASCII characters other than `;`.
    ///
    /// Also what settings demand of each other, which browsers enforce by dropping the
    /// cookie without a word: `SameSite=None` and names that begin with `__Secure-` or
    /// `__Host-` need [`Secure::Always`], `__Host-` the path `/` as well.
    pub fn checked(self) -> Result<Self, Invalid> {
        check_token("pool.session_cookie", &self.name)?;
        if !Self::TTLS.contains(&self.ttl) || self.ttl.subsec_nanos() != 0 {
            return Err(Invalid::value(
                "pool.session_ttl",
                format!(
                    "pool.session_ttl {:?} is not a number of whole seconds from 1 s to 7 days",
                    self.ttl
                ),
            ));
        }
        self.check_path()?;
        self.check_prefixes()?;
        Ok(self)
    }

    fn check_path(&self) -> Result<(), Invalid> {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        let path = &*self.path;
        if !path.starts_with('/') || !path.bytes().all(fits) || path.len() > Self::TEXT_MAX {
            return Err(Invalid::value(
                "pool.session_path",
                format!(
                    "pool.session_path {:?} must begin with '/' and hold at most {} visible \
                     ASCII characters other than ';'",
                    shorten(path),
                    Self::TEXT_MAX
                ),
            ));
        }
        Ok(())
    }

    fn check_prefixes(&self) -> Result<(), Invalid> {
        let begins_with = |prefix: &str| {
            self.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let is_host = begins_with("__Host-");
        let what = if self.same_site == SameSite::None {
            "SameSite=None"
        } else if is_host || begins_with("__Secure-") {
            "such a name"
        } else {
            return Ok(());
        };
        if self.secure != Secure::Always {
            return Err(Invalid::value(
                "pool.session_secure",
                format!(
                    "browsers drop a cookie with {what} unless it is Secure; \
                     set pool.session_secure to always"
                ),
            ));
        }
        if is_host && &*self.path != Self::PATH {
            return Err(Invalid::value(
                "pool.session_path",
                format!(
                    "browsers drop the cookie {} unless its path is /; \
                     set pool.session_path to / or choose another name",
                    self.name
                ),
            ));
        }
        Ok(())
    }
}

impl Default for CookieAffinity {
    fn default() -> Self {
        Self {
            name: Self::NAME.into(),
            ttl: Self::TTL,
            path: Self::PATH.into(),
            same_site: SameSite::default(),
            secure: Secure::default(),
            http_only: true,
            strict: false,
        }
    }
}

/// Which sites' pages may cause a browser to send the cookie (RFC 6265bis).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SameSite {
    /// Pages of the same site only.
    Strict,
    /// Also links to it: a visitor who follows one stays with the backend.
    #[default]
    Lax,
    /// All pages; for what is embedded in other sites.
    None,
}

impl SameSite {
    /// Every name, in the order in which help texts list them.
    pub const NAMES: [&str; 3] = ["strict", "lax", "none"];

    /// As the command line and JSON spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => Self::NAMES[0],
            Self::Lax => Self::NAMES[1],
            Self::None => Self::NAMES[2],
        }
    }
}

impl FromStr for SameSite {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = [Self::Strict, Self::Lax, Self::None];
        named("pool.session_same_site", text, known.map(|known| (known.name(), known)))
    }
}

/// When the cookie is marked `Secure`, which forbids browsers to send it unencrypted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Secure {
    /// On connections with TLS.
    #[default]
    Auto,
    /// Always: something in front of the proxies ends TLS.
    Always,
    /// Never: the site is also used without TLS and sessions shall hold across both.
    Never,
}

impl Secure {
    /// Every name, in the order in which help texts list them.
    pub const NAMES: [&str; 3] = ["auto", "always", "never"];

    /// As the command line and JSON spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => Self::NAMES[0],
            Self::Always => Self::NAMES[1],
            Self::Never => Self::NAMES[2],
        }
    }
}

impl FromStr for Secure {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = [Self::Auto, Self::Always, Self::Never];
        named("pool.session_secure", text, known.map(|known| (known.name(), known)))
    }
}

/// The field whose value is hashed. There is no strict variant: a value names no backend
/// that could be gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderAffinity {
    name: Arc<str>,
}

impl HeaderAffinity {
    /// The name of a field: a token (RFC 9110, 5.1) of at most 255 bytes, kept in lower
    /// case.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        check_token("pool.sticky", name)?;
        Ok(Self { name: name.to_ascii_lowercase().into() })
    }

    /// The field's name in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Checks for a token, which both RFC 6265 and RFC 9110 ask of names.
fn check_token(field: &'static str, name: &str) -> Result<(), Invalid> {
    let is_token_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > CookieAffinity::TEXT_MAX || !name.bytes().all(is_token_byte)
    {
        return Err(Invalid::value(
            field,
            format!(
                "{field} {:?} is no token: use 1 to {} letters, digits and !#$%&'*+-.^_`|~",
                shorten(name),
                CookieAffinity::TEXT_MAX
            ),
        ));
    }
    Ok(())
}

/// The value of this name.
fn named<T: Copy>(
    field: &'static str,
    text: &str,
    known: [(&'static str, T); 3],
) -> Result<T, Invalid> {
    known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names = known.map(|(name, _)| name).join(", ");
        Invalid::value(field, format!("{field} {:?} is none of {names}", shorten(text)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> CookieAffinity {
        CookieAffinity { name: name.into(), ..CookieAffinity::default() }
    }

    fn refused_field(cookie: CookieAffinity) -> &'static str {
        cookie.checked().unwrap_err().field
    }

    #[test]
    fn the_defaults_are_valid_and_safe() {
        let cookie = CookieAffinity::default();
        assert_eq!(cookie.clone().checked(), Ok(cookie.clone()));
        assert!(cookie.http_only && !cookie.strict);
        assert_eq!((cookie.same_site.name(), cookie.secure.name()), ("lax", "auto"));
        assert_eq!(Affinity::default().to_string(), "none");
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["none", "cookie", "header:x-user-id"] {
            assert_eq!(text.parse::<Affinity>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-User".parse::<Affinity>().unwrap().to_string(), "header:x-user");
        for (bad, hint) in [("cookies", "known are none, cookie"), ("header:a b", "no token")] {
            let error = bad.parse::<Affinity>().unwrap_err();
            assert!(error.field == "pool.sticky" && error.message.contains(hint), "{error}");
        }
        for name in SameSite::NAMES {
            assert_eq!(name.parse::<SameSite>().unwrap().name(), name);
        }
        for name in Secure::NAMES {
            assert_eq!(name.parse::<Secure>().unwrap().name(), name);
        }
        assert!("maybe".parse::<Secure>().unwrap_err().message.contains("auto, always, never"));
    }

    #[test]
    fn names_that_would_break_out_of_their_field_are_refused() {
        let long = "x".repeat(256);
        for bad in ["", "a b", "a=b", "a;b", "a,b", "a\"b", "a\r\nb", "a\0", "ä", "(a)", &long] {
            let error = named(bad).checked().unwrap_err();
            assert_eq!(error.field, "pool.session_cookie");
            assert!(error.message.contains("no token"), "{error}");
            assert_eq!(HeaderAffinity::new(bad).unwrap_err().field, "pool.sticky");
        }
        assert!(named("Jsession!#$%&'*+-.^_`|~").checked().is_ok());
        assert_eq!(HeaderAffinity::new("X-User-Id").unwrap().name(), "x-user-id");
    }

    #[test]
    fn paths_that_would_break_out_of_their_attribute_are_refused() {
        let at = |path: &str| CookieAffinity { path: path.into(), ..CookieAffinity::default() };
        for bad in ["", "app", "/a;HttpOnly", "/a b", "/a\r\nX: y", "/ä"] {
            assert_eq!(refused_field(at(bad)), "pool.session_path", "{bad:?}");
        }
        assert!(at("/a/b").checked().is_ok());
    }

    #[test]
    fn a_ttl_is_whole_seconds_up_to_a_week() {
        let with =
            |ms| CookieAffinity { ttl: Duration::from_millis(ms), ..CookieAffinity::default() };
        for ms in [0, 999, 1_500, 7 * 24 * 3_600_000 + 1_000] {
            assert_eq!(refused_field(with(ms)), "pool.session_ttl", "{ms} ms");
        }
        assert!(with(1_000).checked().is_ok());
        assert!(with(7 * 24 * 3_600_000).checked().is_ok());
    }

    #[test]
    fn what_browsers_drop_without_a_word_is_refused_with_one() {
        let secure = |cookie| CookieAffinity { secure: Secure::Always, ..cookie };
        let none = CookieAffinity { same_site: SameSite::None, ..CookieAffinity::default() };
        assert!(none.clone().checked().unwrap_err().message.contains("SameSite=None"));
        assert!(secure(none).checked().is_ok());
        for name in ["__Secure-a", "__Host-a", "__host-a"] {
            assert_eq!(refused_field(named(name)), "pool.session_secure");
            assert!(secure(named(name)).checked().is_ok());
        }
        let host = CookieAffinity { path: "/app".into(), ..secure(named("__Host-a")) };
        assert_eq!(refused_field(host), "pool.session_path");
    }
}
