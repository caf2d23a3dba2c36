//! What a limit counts by.

use std::{fmt, str::FromStr, sync::Arc};

use super::{Invalid, invalid::shorten};

/// What tells the requests of a limit apart. A request that lacks the header field or the
/// cookie is not limited, as in nginx, Envoy and HAProxy: combine such a limit with one by
/// client.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum LimitKey {
    /// Nothing: all requests together.
    #[default]
    All,
    /// The client: its IPv4 address, or the /64 network of its IPv6 address.
    ClientAddress,
    /// The value of the header field with this name, in lower case; of the first, if there
    /// are several.
    Header(Arc<str>),
    /// The value of the cookie with this name, whose case matters.
    Cookie(Arc<str>),
    /// The path, without its query.
    Path,
}

impl LimitKey {
    /// Every form (`client` is short for `client_address`), in the order in which help texts list them.
    pub const FORMS: [&str; 5] = ["all", "client_address", "header:NAME", "cookie:NAME", "path"];

    /// The longest name of a header field or a cookie.
    pub const NAME_MAX: usize = 128;
}

impl FromStr for LimitKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "all" => return Ok(Self::All),
            "client_address" | "client" => return Ok(Self::ClientAddress),
            "path" => return Ok(Self::Path),
            _ => {}
        }
        match text.split_once(':') {
            Some(("header", name)) => checked(name, "header field")
                .map(|()| Self::Header(name.to_ascii_lowercase().into())),
            Some(("cookie", name)) => checked(name, "cookie").map(|()| Self::Cookie(name.into())),
            _ => Err(Invalid::unknown(
                "limit.key",
                "unknown_key",
                format!("unknown key {:?}; known are {}", shorten(text), Self::FORMS.join(", ")),
            )),
        }
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::ClientAddress => f.write_str("client_address"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Path => f.write_str("path"),
        }
    }
}

/// Both names are tokens (RFC 9110, 5.6.2; RFC 6265, 4.1.1).
fn checked(name: &str, what: &str) -> Result<(), Invalid> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > LimitKey::NAME_MAX || !name.bytes().all(is_token) {
        return Err(Invalid::value(
            "limit.key",
            format!(
                "the name {:?} of a {what} must be 1 to {} letters, digits and signs such as '-' \
                 and '_'",
                shorten(name),
                LimitKey::NAME_MAX
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        for text in ["all", "client_address", "header:x-api-key", "cookie:Session", "path"] {
            assert_eq!(text.parse::<LimitKey>().unwrap().to_string(), text);
        }
        assert_eq!("client".parse(), Ok(LimitKey::ClientAddress));
        assert_eq!("header:X-Api-Key".parse(), Ok(LimitKey::Header("x-api-key".into())));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, code, hint) in [
            ("", "unknown_key", "known are all"),
            ("clients", "unknown_key", "client_address"),
            ("query:q", "unknown_key", "header:NAME"),
            ("header", "unknown_key", "header:NAME"),
            ("header:", "invalid_value", "header field"),
            ("header:a b", "invalid_value", "a b"),
            ("cookie:a=b", "invalid_value", "cookie"),
            (&format!("cookie:{}", "x".repeat(129)), "invalid_value", "1 to 128"),
        ] {
            let error = text.parse::<LimitKey>().unwrap_err();
            assert_eq!((error.field, error.code), ("limit.key", code), "{text}");
            assert!(error.message.contains(hint) && error.message.len() < 200, "{text}: {error}");
        }
    }
}
