//! Whether clients stay with their backends, as it is declared: the keys of [`DeclaredPool`]
//! that say so.

use lb_core::model::{Affinity, Algorithm, CookieAffinity, Invalid, SameSite, Secure};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    pool::{DeclaredPool, time_or},
    unit::Time,
};

/// Affinity by the client's address is an algorithm.
const IP_HASH: &str = "ip_hash";

/// Which sites' pages may cause a browser to send the cookie.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionSameSite {
    /// Pages of the same site.
    Strict,
    /// Also links to it.
    Lax,
    /// All pages.
    None,
}

/// When the cookie is marked `Secure`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionSecure {
    /// On connections with TLS.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The algorithm that `sticky = "ip_hash"` asks for.
pub(super) fn algorithm_of(declared: &DeclaredPool) -> Result<Option<Algorithm>, Invalid> {
    match (declared.sticky.as_deref(), declared.algorithm.as_deref()) {
        (Some(IP_HASH), None | Some(IP_HASH)) => Ok(Some(Algorithm::IpHash)),
        (Some(IP_HASH), Some(other)) => Err(Invalid::value(
            "pool.sticky",
            format!(
                "sticky = \"ip_hash\" is the algorithm ip_hash, but the pool names {other:?}; leave \
                 one of both out"
            ),
        )),
        _ => Ok(None),
    }
}

/// Reads the affinity; what is left out gets its default.
pub(super) fn declared_affinity(declared: &DeclaredPool) -> Result<Affinity, Invalid> {
    let affinity = match declared.sticky.as_deref() {
        None | Some(IP_HASH) => Affinity::None,
        Some(text) => text.parse()?,
    };
    let Affinity::Cookie(default) = affinity else {
        check_no_cookie(declared)?;
        return Ok(affinity);
    };
    let text_or = |text: &Option<String>, default| text.as_deref().map_or(default, Into::into);
    let policy = CookieAffinity {
        name: text_or(&declared.session_cookie, default.name),
        ttl: time_or(declared.session_ttl, default.ttl),
        path: text_or(&declared.session_path, default.path),
        same_site: declared.session_same_site.map_or(default.same_site, Into::into),
        secure: declared.session_secure.map_or(default.secure, Into::into),
        http_only: declared.session_http_only.unwrap_or(default.http_only),
        strict: declared.session_strict.unwrap_or(default.strict),
    };
    policy.checked().map(Affinity::Cookie)
}

fn check_no_cookie(declared: &DeclaredPool) -> Result<(), Invalid> {
    for (field, given) in [
        ("pool.session_cookie", declared.session_cookie.is_some()),
        ("pool.session_ttl", declared.session_ttl.is_some()),
        ("pool.session_path", declared.session_path.is_some()),
        ("pool.session_same_site", declared.session_same_site.is_some()),
        ("pool.session_secure", declared.session_secure.is_some()),
        ("pool.session_http_only", declared.session_http_only.is_some()),
        ("pool.session_strict", declared.session_strict.is_some()),
    ] {
        if given {
            let key = field.trim_start_matches("pool.");
            return Err(Invalid::value(
                field,
                format!(
                    "{key} belongs to sessions by cookie; leave it out, or set sticky = \"cookie\""
                ),
            ));
        }
    }
    Ok(())
}

/// Adds to `others` the keys that a pool's affinity has a use for.
pub(super) fn affinity_keys(affinity: &Affinity, others: DeclaredPool) -> DeclaredPool {
    let keys = DeclaredPool { sticky: Some(affinity.to_string()), ..others };
    let Some(policy) = affinity.cookie() else { return keys };
    DeclaredPool {
        session_cookie: Some(policy.name.to_string()),
        session_ttl: Some(Time(policy.ttl)),
        session_path: Some(policy.path.to_string()),
        session_same_site: Some(policy.same_site.into()),
        session_secure: Some(policy.secure.into()),
        session_http_only: Some(policy.http_only),
        session_strict: Some(policy.strict),
        ..keys
    }
}

impl From<SessionSameSite> for SameSite {
    fn from(declared: SessionSameSite) -> Self {
        match declared {
            SessionSameSite::Strict => Self::Strict,
            SessionSameSite::Lax => Self::Lax,
            SessionSameSite::None => Self::None,
        }
    }
}

impl From<SameSite> for SessionSameSite {
    fn from(value: SameSite) -> Self {
        match value {
            SameSite::Strict => Self::Strict,
            SameSite::Lax => Self::Lax,
            SameSite::None => Self::None,
        }
    }
}

impl From<SessionSecure> for Secure {
    fn from(declared: SessionSecure) -> Self {
        match declared {
            SessionSecure::Auto => Self::Auto,
            SessionSecure::Always => Self::Always,
            SessionSecure::Never => Self::Never,
        }
    }
}

impl From<Secure> for SessionSecure {
    fn from(value: Secure) -> Self {
        match value {
            Secure::Auto => Self::Auto,
            Secure::Always => Self::Always,
            Secure::Never => Self::Never,
        }
    }
}
