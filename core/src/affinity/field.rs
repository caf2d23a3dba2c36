//! Cookies in fields: finding one in `Cookie`, writing one for `Set-Cookie`.

use super::cookie::Value;
use crate::model::{CookieAffinity, SameSite, Secure};

/// The value of the first cookie of this name in the values of all `Cookie` fields, in
/// their order.
///
/// Browsers send one field, HTTP/2 may split it (RFC 9113, 8.2.3), so several count as one
/// that goes on. Of several cookies of a name browsers send the one with the longest path
/// first (RFC 6265, 5.4), which is the one that is meant most; servers are told to rely on
/// no order, and one that reads only the first does one signature's work for a request,
/// however many it is sent. Names are compared exactly. A pair of quotes around a value,
/// which some clients add, is taken off.
///
/// Allocates nothing.
pub fn find<'a>(fields: impl Iterator<Item = &'a [u8]>, name: &str) -> Option<&'a [u8]> {
    all(fields, name).next()
}

/// The values of all cookies of this name, in the order in which they stand.
pub fn all<'a>(
    fields: impl Iterator<Item = &'a [u8]>,
    name: &str,
) -> impl Iterator<Item = &'a [u8]> {
    fields
        .flat_map(|field| field.split(|&byte| byte == b';'))
        .filter_map(|pair| {
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            Some((pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()))
        })
        .filter(move |(found, _)| *found == name.as_bytes())
        .map(|(_, value)| unquoted(value))
}

/// Whether the value of a `Cookie` field has a cookie of one of these names.
#[must_use]
pub fn has(field: &[u8], names: &[impl AsRef<str>]) -> bool {
    names.iter().any(|name| find(std::iter::once(field), name.as_ref()).is_some())
}

/// Appends to `out` what is left of the value of a `Cookie` field without the cookies of
/// these names, in the order and spelling of the client; nothing if none is left.
pub fn strip(field: &[u8], names: &[impl AsRef<str>], out: &mut Vec<u8>) {
    let mut is_first = true;
    for pair in field.split(|&byte| byte == b';').map(<[u8]>::trim_ascii) {
        if pair.is_empty() || has(pair, names) {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(pair);
    }
}

/// Appends to `out` the value of a `Set-Cookie` field that gives a client its session.
/// `is_tls`: the client's connection is encrypted, or whoever is trusted to know says so.
pub fn set(policy: &CookieAffinity, value: &Value, is_tls: bool, out: &mut Vec<u8>) {
    write(policy, value.as_bytes(), policy.ttl.as_secs(), is_tls, out);
}

/// Appends to `out` the value of a `Set-Cookie` field that ends a client's session.
pub fn clear(policy: &CookieAffinity, is_tls: bool, out: &mut Vec<u8>) {
    write(policy, b"", 0, is_tls, out);
}

fn write(policy: &CookieAffinity, value: &[u8], max_age_s: u64, is_tls: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(policy.name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value);
    out.extend_from_slice(b"; Path=");
    out.extend_from_slice(policy.path.as_bytes());
    out.extend_from_slice(format!("; Max-Age={max_age_s}").as_bytes());
    if policy.http_only {
        out.extend_from_slice(b"; HttpOnly");
    }
    out.extend_from_slice(match policy.same_site {
        SameSite::Strict => b"; SameSite=Strict",
        SameSite::Lax => b"; SameSite=Lax",
        SameSite::None => b"; SameSite=None",
    });
    let is_secure = match policy.secure {
        Secure::Auto => is_tls,
        Secure::Always => true,
        Secure::Never => false,
    };
    if is_secure {
        out.extend_from_slice(b"; Secure");
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        affinity::{KeyId, KeyRing, SessionKey},
        model::{BackendId, Incarnation, PoolName},
    };

    fn found<'a>(fields: &[&'a str]) -> Option<&'a str> {
        let value = find(fields.iter().map(|field| field.as_bytes()), "a")?;
        Some(str::from_utf8(value).unwrap())
    }

    #[test]
    fn a_cookie_is_found_wherever_it_stands() {
        for (fields, value) in [
            (&["a=1"][..], Some("1")),
            (&["b=2; a=1"], Some("1")),
            (&["b=2;a=1 ;c"], Some("1")),
            (&["b=2", "a=1"], Some("1")),
            (&["a=\"1\""], Some("1")),
            (&["a=\"1"], Some("\"1")),
            (&["a=\""], Some("\"")),
            (&["a="], Some("")),
            (&["a=x=y"], Some("x=y")),
            (&["a=1; a=2", "a=3"], Some("1")),
            (&["\t a \t=\t 1 \t"], Some("1")),
            (&["a", "a ; a=1"], Some("1")),
            (&["aa=1; A=2; a b=3; =a"], None),
            (&["b=\"a=1\""], None),
            (&["", ";;", "="], None),
            (&[], None),
        ] {
            assert_eq!(found(fields), value, "{fields:?}");
        }
    }

    #[test]
    fn what_is_left_of_a_field_is_passed_on() {
        for (field, left) in [
            ("a=1", ""),
            ("a=1; b=2", "b=2"),
            ("z=1; b=2; a=3", "b=2"),
            ("b=2; a=1;c=3", "b=2; c=3"),
            ("b=2; a=1; a=2; c", "b=2; c"),
            (" b = \"2\" ;; A=1", "b = \"2\"; A=1"),
            ("", ""),
        ] {
            let mut out = Vec::new();
            strip(field.as_bytes(), &["a", "z"], &mut out);
            assert_eq!(str::from_utf8(&out).unwrap(), left, "{field}");
            assert!(!has(&out, &["a", "z"]));
        }
    }

    fn written(policy: &CookieAffinity, is_tls: bool) -> String {
        let ring = KeyRing::first(SessionKey::new(KeyId(1), [7; SessionKey::LEN]));
        let pool = PoolName::default_pool();
        let backend = BackendId::new("backend1").unwrap();
        let value = Value::sign(&ring, &pool, &backend, Incarnation(1), 0, policy.ttl);
        let mut out = Vec::new();
        set(policy, &value, is_tls, &mut out);
        let value = str::from_utf8(value.as_bytes()).unwrap();
        String::from_utf8(out).unwrap().replace(value, "VALUE")
    }

    #[test]
    fn a_cookie_is_sent_as_the_pool_says() {
        let policy = CookieAffinity::default();
        let plain = "lb_session=VALUE; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax";
        assert_eq!(written(&policy, false), plain);
        assert_eq!(written(&policy, true), format!("{plain}; Secure"));
        let policy = CookieAffinity {
            name: "id".into(),
            path: "/app".into(),
            ttl: Duration::from_secs(60),
            same_site: SameSite::None,
            secure: Secure::Always,
            http_only: false,
            ..policy
        };
        let embedded = "id=VALUE; Path=/app; Max-Age=60; SameSite=None; Secure";
        assert_eq!(written(&policy, false), embedded);
        let policy = CookieAffinity { secure: Secure::Never, ..policy };
        let never = written(&CookieAffinity { same_site: SameSite::Strict, ..policy }, true);
        assert_eq!(never, "id=VALUE; Path=/app; Max-Age=60; SameSite=Strict");
    }

    #[test]
    fn a_session_is_ended_by_the_same_attributes() {
        let mut out = Vec::new();
        clear(&CookieAffinity::default(), true, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "lb_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure");
    }
}
