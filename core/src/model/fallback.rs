//! What becomes of requests to a pool that cannot serve them: another pool, or an answer
//! that is written down.
//!
//! The way is one step long: the fallback's own fallback is not followed. So a failing pool
//! can take at most one other with it, where a chain would hand the whole load on until
//! every pool is down. No request can go round in circles, and two sites may each be the
//! other's fallback, which a rule against circles would forbid. Only a pool that names
//! itself makes no sense.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;

use super::{Invalid, PoolName, invalid::shorten};

/// Where requests go while a pool has no backend for them, or no other one for a request that has
/// failed and may be sent again. Panic mode comes first only where
/// the fallback pool has no backend that is well. The default: nowhere, and the proxy answers
/// 503.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fallback {
    /// Another pool, tried first.
    pub pool: Option<PoolName>,
    /// The answer when there is no such pool, or when it has no backend either.
    pub answer: Option<StaticAnswer>,
}

/// What to do with one request whose pool cannot serve it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Instead<'a> {
    /// Send it to this pool, as if it were its own; if that fails, it has failed.
    Pool(&'a PoolName),
    /// Answer it so.
    Answer(&'a StaticAnswer),
    /// Answer it 503, reason `no_healthy_backend`.
    Unavailable,
}

impl Fallback {
    /// Decides for a request of the pool whose fallback this is. `can_serve` tells whether
    /// a pool has a backend for it; it is asked once at most.
    pub fn instead(&self, can_serve: impl FnOnce(&PoolName) -> bool) -> Instead<'_> {
        match (&self.pool, &self.answer) {
            (Some(pool), _) if can_serve(pool) => Instead::Pool(pool),
            (_, Some(answer)) => Instead::Answer(answer),
            (_, None) => Instead::Unavailable,
        }
    }
}

/// Checks the fallbacks of all pools together: each names a pool that is there, and none
/// its own.
pub fn check_fallbacks<'a>(
    pools: impl IntoIterator<Item = (&'a PoolName, &'a Fallback)> + Clone,
) -> Result<(), Invalid> {
    let names: BTreeSet<_> = pools.clone().into_iter().map(|(name, _)| name).collect();
    for (name, fallback) in pools {
        let Some(other) = &fallback.pool else { continue };
        if other == name {
            return Err(Invalid::value(
                FIELD_POOL,
                format!("pool {name} is its own fallback; name another pool, or none"),
            ));
        }
        if !names.contains(other) {
            return Err(Invalid::unknown(
                FIELD_POOL,
                "missing_reference",
                format!(
                    "the fallback of pool {name} is {other:?}, which does not exist; create it first"
                ),
            ));
        }
    }
    Ok(())
}

const FIELD_POOL: &str = "pool.fallback_pool";

/// An answer that needs no backend: an apology, or a page for the time of maintenance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StaticAnswer {
    status: u16,
    content_type: Arc<str>,
    body: Bytes,
}

impl StaticAnswer {
    /// The default status.
    pub const STATUS: u16 = 503;
    /// What [`Self::status`] may be; what is below ends no exchange.
    pub const STATUSES: RangeInclusive<u16> = 200..=599;
    /// The default content type.
    pub const CONTENT_TYPE: &str = "text/plain; charset=utf-8";
    /// The longest content type, in bytes.
    pub const CONTENT_TYPE_MAX: usize = 255;
    /// The longest body, in bytes: every proxy holds it, and every configuration carries it.
    pub const BODY_MAX: usize = 64 * 1024;

    /// Checks that the status is 200 to 599, the content type a type and a subtype of at
    /// most 255 visible ASCII characters and blanks, and that the body has at most 64 KiB,
    /// or nothing where HTTP has no room for one (204, 205, 304).
    pub fn new(status: u16, content_type: &str, body: Bytes) -> Result<Self, Invalid> {
        if !Self::STATUSES.contains(&status) {
            return Err(Invalid::value(
                "pool.fallback_status",
                format!(
                    "pool.fallback_status {status} is outside {} to {}",
                    Self::STATUSES.start(),
                    Self::STATUSES.end()
                ),
            ));
        }
        check_content_type(content_type)?;
        if body.len() > Self::BODY_MAX {
            return Err(Invalid::value(
                "pool.fallback_body",
                format!(
                    "pool.fallback_body has {} bytes; at most {} are allowed: let a backend of a \
                     fallback pool serve what is larger",
                    body.len(),
                    Self::BODY_MAX
                ),
            ));
        }
        if matches!(status, 204 | 205 | 304) && !body.is_empty() {
            return Err(Invalid::value(
                "pool.fallback_body",
                format!(
                    "an answer with the status {status} has no body; leave pool.fallback_body \
                     empty or choose another pool.fallback_status"
                ),
            ));
        }
        Ok(Self { status, content_type: content_type.into(), body })
    }

    /// The status; default 503, so that clients and caches know that it is no real answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }
    /// The value of `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.content_type
    }
    /// The body, as it is sent.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// What would break out of its field is refused, and what is plainly no type; the rest is
/// for clients to understand.
fn check_content_type(content_type: &str) -> Result<(), Invalid> {
    let fits = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let is_part = |part: &str| !part.is_empty() && !part.starts_with(' ') && !part.ends_with(' ');
    let has_parts = content_type
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_part(kind) && is_part(subtype));
    if !has_parts
        || !content_type.bytes().all(fits)
        || content_type.len() > StaticAnswer::CONTENT_TYPE_MAX
    {
        let shown = shorten(content_type);
        return Err(Invalid::value(
            "pool.fallback_content_type",
            format!(
                "pool.fallback_content_type {shown:?} is no content type such as {:?}, of at most \
                 {} visible ASCII characters",
                StaticAnswer::CONTENT_TYPE,
                StaticAnswer::CONTENT_TYPE_MAX
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Result<StaticAnswer, Invalid> {
        StaticAnswer::new(status, StaticAnswer::CONTENT_TYPE, body.into())
    }

    fn pool(name: &str) -> PoolName {
        PoolName::new(name).unwrap()
    }

    /// Checks pools that are named with their fallback pools.
    fn check(pools: &[(&str, Option<&str>)]) -> Result<(), Invalid> {
        let pools: Vec<_> = pools
            .iter()
            .map(|(name, other)| (pool(name), Fallback { pool: other.map(pool), answer: None }))
            .collect();
        check_fallbacks(pools.iter().map(|(name, fallback)| (name, fallback)))
    }

    #[test]
    fn a_pool_is_not_its_own_fallback_but_two_may_be_each_others() {
        let error = check(&[("a", Some("b")), ("b", Some("b"))]).unwrap_err();
        assert!(error.message.contains("pool b is its own fallback"), "{error}");
        assert_eq!(check(&[("a", Some("b")), ("b", Some("a"))]), Ok(()));
        assert_eq!(check(&[("a", Some("b")), ("b", Some("c")), ("c", None)]), Ok(()));
        assert_eq!(check(&[]), Ok(()));
    }

    #[test]
    fn a_fallback_must_be_there() {
        let error = check(&[("a", Some("b"))]).unwrap_err();
        assert_eq!((error.field, error.code), ("pool.fallback_pool", "missing_reference"));
        assert!(error.message.contains("pool a is \"b\", which does not exist"), "{error}");
    }

    #[test]
    fn the_pool_comes_first_and_the_answer_when_it_cannot_serve() {
        let (b, apology) = (pool("b"), answer(503, "sorry").unwrap());
        let of = |pool: Option<&PoolName>, answer: Option<&StaticAnswer>| Fallback {
            pool: pool.cloned(),
            answer: answer.cloned(),
        };
        let both = of(Some(&b), Some(&apology));
        assert_eq!(both.instead(|name| *name == b), Instead::Pool(&b));
        assert_eq!(both.instead(|_| false), Instead::Answer(&apology));
        let never = |_: &PoolName| unreachable!("there is no pool to ask about");
        assert_eq!(of(None, Some(&apology)).instead(never), Instead::Answer(&apology));
        assert_eq!(of(Some(&b), None).instead(|_| false), Instead::Unavailable);
        assert_eq!(Fallback::default().instead(never), Instead::Unavailable);
    }

    #[test]
    fn answers_that_http_cannot_carry_are_refused() {
        for (status, body, field) in [
            (0, "", "pool.fallback_status"),
            (199, "", "pool.fallback_status"),
            (600, "", "pool.fallback_status"),
            (204, "x", "pool.fallback_body"),
            (205, "x", "pool.fallback_body"),
            (304, "x", "pool.fallback_body"),
        ] {
            assert_eq!(answer(status, body).unwrap_err().field, field, "{status}");
        }
        for status in [200, 204, 304, 503, 599] {
            assert_eq!(answer(status, "").unwrap().status(), status);
        }
        let of_bytes = |count| StaticAnswer::new(503, "a/b", vec![0; count].into());
        assert_eq!(of_bytes(64 * 1024).unwrap().body().len(), 64 * 1024);
        assert_eq!(of_bytes(64 * 1024 + 1).unwrap_err().field, "pool.fallback_body");
    }

    #[test]
    fn content_types_that_would_break_out_of_their_field_are_refused() {
        let long = format!("text/{}", "x".repeat(251));
        for bad in ["", "text", "/", "text/", "/html", " text/html", "a/b\r\nX: y", "a/ä", &long] {
            let error = StaticAnswer::new(200, bad, Bytes::new()).unwrap_err();
            assert_eq!(error.field, "pool.fallback_content_type", "{bad:?}");
        }
        for good in [StaticAnswer::CONTENT_TYPE, "text/html", "application/problem+json"] {
            let answer = StaticAnswer::new(200, good, Bytes::new()).unwrap();
            assert_eq!(answer.content_type(), good);
        }
    }
}
