//! Sessions: what keeps a pool's clients with their backends, the keys, and a single one.

use std::{collections::BTreeMap, time::Duration};

use lb_core::model::{Affinity, CookieAffinity};
use lb_proto::{document::unit::duration_text, v1 as pb};
use serde::Serialize;

use super::{object::Fields, some_unix_ms};

/// What keeps the clients of a pool with their backends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct AffinityView {
    /// none, cookie, or header:NAME.
    pub(crate) sticky: String,
    /// All that follows: of a cookie only.
    pub(crate) session_cookie: Option<String>,
    pub(crate) session_ttl_ms: Option<u32>,
    pub(crate) session_path: Option<String>,
    pub(crate) session_same_site: Option<String>,
    pub(crate) session_secure: Option<String>,
    pub(crate) session_http_only: Option<bool>,
    pub(crate) session_strict: Option<bool>,
}

impl AffinityView {
    /// The settings, named as their flags.
    pub(crate) fn fields(&self) -> Fields {
        let mut fields = vec![("sticky", self.sticky.clone())];
        let ttl = self.session_ttl_ms.map(|ms| duration_text(Duration::from_millis(ms.into())));
        for (name, value) in [
            ("session-cookie", self.session_cookie.clone()),
            ("session-ttl", ttl),
            ("session-path", self.session_path.clone()),
            ("session-same-site", self.session_same_site.clone()),
            ("session-secure", self.session_secure.clone()),
            ("session-http-only", self.session_http_only.map(|value| value.to_string())),
            ("session-strict", self.session_strict.map(|value| value.to_string())),
        ] {
            fields.extend(value.map(|value| (name, value)));
        }
        fields
    }

    /// The settings that a cookie has unless it is told otherwise.
    pub(super) fn cookie_defaults() -> Fields {
        let cookie = Affinity::Cookie(CookieAffinity::default());
        Self::from(Some(pb::Affinity::from(&cookie))).fields().split_off(1)
    }
}

impl From<Option<pb::Affinity>> for AffinityView {
    fn from(wire: Option<pb::Affinity>) -> Self {
        let wire = wire.unwrap_or_default();
        let is_cookie = wire.kind == "cookie";
        let of_cookie = |text: String| is_cookie.then_some(text);
        Self {
            sticky: match wire.kind.as_str() {
                "" => "none".to_owned(),
                "header" => format!("header:{}", wire.header),
                kind => kind.to_owned(),
            },
            session_cookie: of_cookie(wire.cookie),
            session_ttl_ms: is_cookie.then_some(wire.ttl_ms),
            session_path: of_cookie(wire.path),
            session_same_site: of_cookie(wire.same_site),
            session_secure: of_cookie(wire.secure),
            session_http_only: wire.http_only.filter(|_| is_cookie),
            session_strict: is_cookie.then_some(wire.strict),
        }
    }
}

/// What became of the sessions of a pool's requests: `kept 90, no_cookie 10`.
pub(crate) fn results(sessions: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> =
        sessions.iter().map(|(result, count)| format!("{result} {count}")).collect();
    parts.join(", ")
}

/// A key that signs sessions, without the secret.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SessionKeyView {
    pub(crate) id: String,
    /// active, next or retired.
    pub(crate) role: String,
    pub(crate) made_unix_ms: Option<u64>,
    /// Of a retired key: until when sessions that it signed are believed.
    pub(crate) honoured_until_unix_ms: Option<u64>,
}

impl From<pb::SessionKeyStatus> for SessionKeyView {
    fn from(wire: pb::SessionKeyStatus) -> Self {
        let pb::SessionKeyStatus { id, role, made_unix_ms, honoured_until_unix_ms } = wire;
        Self {
            id,
            role,
            made_unix_ms: some_unix_ms(made_unix_ms),
            honoured_until_unix_ms: some_unix_ms(honoured_until_unix_ms),
        }
    }
}

/// What a rotation came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RotationView {
    /// The new key.
    pub(crate) id: String,
    /// It signs already.
    pub(crate) active: bool,
    /// Connected proxies that do not know it yet.
    pub(crate) waits_for: Vec<String>,
    /// Lost proxies that do not know it.
    pub(crate) lacked_by_lost: Vec<LostProxyView>,
    pub(crate) keys: Vec<SessionKeyView>,
}

/// A proxy that is cut off from the control plane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LostProxyView {
    pub(crate) proxy: String,
    /// Since it was last heard of.
    pub(crate) last_seen_ms: u64,
}

/// Who lacks the newest key: connected proxies, and lost ones.
pub(crate) fn lacking(progress: Option<pb::ApplyProgress>) -> (Vec<String>, Vec<LostProxyView>) {
    let (mut behind, mut lost) = (Vec::new(), Vec::new());
    for pb::Laggard { proxy_id: proxy, state, last_seen_ms, .. } in
        progress.unwrap_or_default().laggards
    {
        match state.as_str() {
            "lost" => lost.push(LostProxyView { proxy, last_seen_ms }),
            _ => behind.push(proxy),
        }
    }
    (behind, lost)
}

impl From<pb::RotateKeysResponse> for RotationView {
    fn from(wire: pb::RotateKeysResponse) -> Self {
        let (waits_for, lacked_by_lost) = lacking(wire.progress);
        Self {
            id: wire.id,
            active: wire.active,
            waits_for,
            lacked_by_lost,
            keys: wire.keys.into_iter().map(SessionKeyView::from).collect(),
        }
    }
}

/// What a session's cookie says, and what a request with it meets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SessionView {
    /// kept, or why not.
    pub(crate) verdict: String,
    pub(crate) pool: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) incarnation: Option<u64>,
    pub(crate) expires_unix_ms: Option<u64>,
    pub(crate) key_id: Option<String>,
    pub(crate) strict: bool,
}

impl From<pb::DescribeSessionResponse> for SessionView {
    fn from(wire: pb::DescribeSessionResponse) -> Self {
        let some = |text: String| (!text.is_empty()).then_some(text);
        let is_read = !wire.pool.is_empty();
        Self {
            verdict: wire.verdict,
            pool: some(wire.pool),
            backend: some(wire.backend),
            address: some(wire.address),
            incarnation: is_read.then_some(wire.incarnation),
            expires_unix_ms: some_unix_ms(wire.expires_unix_ms),
            key_id: some(wire.key_id),
            strict: wire.strict,
        }
    }
}
