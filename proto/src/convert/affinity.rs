//! Whether clients of a pool stay with their backends.

use std::sync::Arc;

use lb_core::model::{Affinity, CookieAffinity, HeaderAffinity, Invalid};

use super::{duration_or, millis};
use crate::v1 as pb;

/// The settings of a cookie are checked whatever the kind is, and then dropped if there is
/// none: who reads a pool, changes its kind and writes it back means no harm.
impl TryFrom<pb::Affinity> for Affinity {
    type Error = Invalid;

    fn try_from(wire: pb::Affinity) -> Result<Self, Invalid> {
        let default = CookieAffinity::default();
        let text_or = |text: &str, default: &Arc<str>| {
            if text.is_empty() { default.clone() } else { text.into() }
        };
        let policy = CookieAffinity {
            name: text_or(&wire.cookie, &default.name),
            ttl: duration_or(wire.ttl_ms, default.ttl),
            path: text_or(&wire.path, &default.path),
            same_site: if wire.same_site.is_empty() {
                default.same_site
            } else {
                wire.same_site.parse()?
            },
            secure: if wire.secure.is_empty() { default.secure } else { wire.secure.parse()? },
            http_only: wire.http_only.unwrap_or(default.http_only),
            strict: wire.strict,
        }
        .checked()?;
        match wire.kind.as_str() {
            "cookie" => Ok(Self::Cookie(policy)),
            "header" => HeaderAffinity::new(&wire.header).map(Self::Header),
            other => other.parse(),
        }
    }
}

impl From<&Affinity> for pb::Affinity {
    fn from(affinity: &Affinity) -> Self {
        match affinity {
            Affinity::None => Self { kind: "none".to_owned(), ..Self::default() },
            Affinity::Cookie(policy) => Self {
                kind: "cookie".to_owned(),
                cookie: policy.name.to_string(),
                ttl_ms: millis(policy.ttl),
                path: policy.path.to_string(),
                same_site: policy.same_site.name().to_owned(),
                secure: policy.secure.name().to_owned(),
                http_only: Some(policy.http_only),
                strict: policy.strict,
                header: String::new(),
            },
            Affinity::Header(header) => Self {
                kind: "header".to_owned(),
                header: header.name().to_owned(),
                ..Self::default()
            },
        }
    }
}
