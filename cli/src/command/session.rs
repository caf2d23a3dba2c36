//! Sessions: their settings on the way to the wire, their keys, and what a cookie says.

use std::time::Duration;

use lb_proto::v1 as pb;

use super::{
    Session,
    describe::Page,
    get,
    setting::{millis, set},
};
use crate::{
    args::{RotateSessionKeys, Sessions},
    clock,
    exit::{Exit, Failure},
    format,
    output::{self, Cell, Table, Tone},
    view::{LostProxyView, RotationView, SessionKeyView, SessionView, lacking},
};

/// How much longer than the proxies' time an answer may take to arrive.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// Lays settings over what keeps a pool's clients with their backends.
pub(super) fn edit(pool: &mut pb::Pool, settings: &Sessions) -> Result<(), Failure> {
    let affinity = pool.affinity.get_or_insert_default();
    match settings.sticky.as_deref() {
        Some("ip_hash") => {
            if pool.algorithm != "ip_hash" {
                "ip_hash".clone_into(&mut pool.algorithm);
                pool.choices = 0;
                pool.error_hold_ms = None;
            }
            *affinity = pb::Affinity { kind: "none".to_owned(), ..pb::Affinity::default() };
        }
        Some(sticky) => {
            let (kind, header) = sticky.split_once(':').unwrap_or((sticky, ""));
            if affinity.kind != kind {
                // The settings of a cookie go with it.
                *affinity = pb::Affinity::default();
            }
            kind.clone_into(&mut affinity.kind);
            header.clone_into(&mut affinity.header);
        }
        None => {}
    }
    if settings.has_cookie_settings() && affinity.kind != "cookie" {
        return Err(Failure::new(
            Exit::Rejected,
            format!(
                "the --session-... settings belong to sessions by cookie, which pool {} does not \
                 have; add --sticky cookie",
                pool.name
            ),
        ));
    }
    set(&mut affinity.cookie, settings.session_cookie.clone());
    set(&mut affinity.ttl_ms, settings.session_ttl.map(millis));
    set(&mut affinity.path, settings.session_path.clone());
    set(&mut affinity.same_site, settings.session_same_site.map(|s| s.name().to_owned()));
    set(&mut affinity.secure, settings.session_secure.map(|s| s.name().to_owned()));
    if settings.session_http_only.is_some() {
        affinity.http_only = settings.session_http_only;
    }
    set(&mut affinity.strict, settings.session_strict);
    Ok(())
}

/// All keys, the active one first.
pub(super) async fn keys(session: &Session) -> Result<Vec<SessionKeyView>, Failure> {
    Ok(list(session).await?.keys.into_iter().map(SessionKeyView::from).collect())
}

async fn list(session: &Session) -> Result<pb::ListKeysResponse, Failure> {
    session.client.call(session.client.sessions().list_keys(pb::ListKeysRequest {})).await
}

/// `get session-keys`
pub(super) async fn show_keys(session: &Session, name: Option<&str>) -> Result<(), Failure> {
    let answer = list(session).await?;
    let (rotated, progress, unsure_for_ms) =
        (answer.rotated_after_ms, answer.progress, answer.unsure_for_ms);
    let views: Vec<_> = answer.keys.into_iter().map(SessionKeyView::from).collect();
    let found = get::choose(views, name, "session-key", |view| &view.id)?;
    let now = clock::unix_ms();
    get::show(session, "session-key", name, &found, |v| &v.id, |v| table(v, rotated, now))?;
    let (waits, lost) = lacking(progress);
    if !waits.is_empty() {
        output::note(&format!("the next key signs once these know it: {}", waits.join(", ")));
    }
    if !lost.is_empty() {
        output::note(&format!("the next key does not sign: {}", lost_lack(&lost)));
    } else if unsure_for_ms > 0 {
        output::note(&format!(
            "the next key does not sign by itself for {}: the control plane was restarted, and \
             proxies that were cut off before would not know the key; 'lbctl rotate-session-keys' \
             lets it sign now",
            format::age(Duration::from_millis(unsure_for_ms))
        ));
    }
    Ok(())
}

/// What lost proxies that lack a key mean, and what to do.
fn lost_lack(lost: &[LostProxyView]) -> String {
    let told = |proxy: &LostProxyView| {
        let seen = format::age(Duration::from_millis(proxy.last_seen_ms));
        format!("{} (lost, last seen {seen} ago)", proxy.proxy)
    };
    let who: Vec<String> = lost.iter().map(told).collect();
    format!(
        "{} may be serving traffic and would take its sessions for forgeries. Connect them again; \
         or, if they serve nobody any more, 'lbctl rotate-session-keys --force'. They count until \
         they have been lost for a day",
        who.join(", ")
    )
}

fn table(views: &[SessionKeyView], rotated_after_ms: u64, now: u64) -> Table {
    let mut table = Table::new(&["KEY", "ROLE", "AGE", "UNTIL"]);
    for view in views {
        let until = match (view.role.as_str(), view.made_unix_ms) {
            ("active", Some(made)) if rotated_after_ms > 0 => {
                Some(made.saturating_add(rotated_after_ms))
            }
            _ => view.honoured_until_unix_ms,
        };
        let tone = if view.role == "active" { Tone::Good } else { Tone::Plain };
        table.row(vec![
            (&view.id).into(),
            Cell::toned(&view.role, tone),
            format::age_of(view.made_unix_ms, now).into(),
            until.map_or_else(|| "-".to_owned(), |at| format::plan(Some(at), now)).into(),
        ]);
    }
    table
}

/// `rotate-session-keys`
pub(super) async fn rotate(session: &Session, args: &RotateSessionKeys) -> Result<(), Failure> {
    let timeout = session.client.timeout();
    let timeout_ms = if args.no_wait { 0 } else { millis(timeout) };
    let request = pb::RotateKeysRequest { timeout_ms, force: args.force, ..Default::default() };
    let deadline = timeout.saturating_add(ANSWER_GRACE);
    let mut sessions = session.client.sessions();
    let answer = session.client.call_within(deadline, sessions.rotate_keys(request)).await?;
    let view = RotationView::from(answer);
    session.screen.answer(
        &view,
        || vec![format!("session-key/{}", view.id)],
        || {
            if view.active {
                let retired = view.keys.iter().filter(|key| key.role == "retired").count();
                let former = format::count(retired, "former key is", "former keys are");
                format!("key {} signs; {former} believed until their sessions have ended", view.id)
            } else {
                format!(
                    "key {} is announced; it signs once every proxy knows it   (lbctl get \
                     session-keys)",
                    view.id
                )
            }
        },
    )?;
    let lost = &view.lacked_by_lost;
    if view.active && !lost.is_empty() {
        let who: Vec<&str> = lost.iter().map(|proxy| proxy.proxy.as_str()).collect();
        output::note(&format!(
            "{}, lost, does not know key {}: clients that come there and elsewhere begin new \
             sessions until it is connected again",
            who.join(", "),
            view.id
        ));
    }
    if view.active || args.no_wait {
        return Ok(());
    }
    let whom = if !view.waits_for.is_empty() {
        format!("waiting for {}", view.waits_for.join(", "))
    } else if !lost.is_empty() {
        lost_lack(lost)
    } else {
        "proxies may still be on their way back to the control plane".to_owned()
    };
    Err(Failure::new(
        Exit::TimedOut,
        format!(
            "key {} does not sign yet: {whom}. The former one signs meanwhile, and the rotation \
             goes on by itself",
            view.id
        ),
    ))
}

/// `describe session`
pub(super) async fn describe(session: &Session, cookie: &str) -> Result<(), Failure> {
    let request = pb::DescribeSessionRequest { cookie: cookie.to_owned() };
    let answer = session.client.call(session.client.sessions().describe_session(request)).await?;
    let view = SessionView::from(answer);
    let now = clock::unix_ms();
    session.screen.answer(&view, || vec![format!("session/{}", view.verdict)], || page(&view, now))
}

fn page(view: &SessionView, now: u64) -> String {
    let mut page = Page::new(&format!("session: {}", view.verdict));
    let is_genuine =
        !matches!(view.verdict.as_str(), "malformed" | "unknown_key" | "bad_signature");
    let unsure = if is_genuine { "" } else { " (as it says; nobody has confirmed it)" };
    let says = |text: &Option<String>| match text {
        Some(text) => format!("{text}{unsure}"),
        None => String::new(),
    };
    page.row("pool", &says(&view.pool));
    page.row("backend", &says(&view.backend));
    page.row("address", view.address.as_deref().unwrap_or_default());
    let expires = match view.expires_unix_ms {
        Some(at) if at < now => format!("{} ago", format::age_of(Some(at), now)),
        at => at.map(|at| format::plan(Some(at), now)).unwrap_or_default(),
    };
    page.row("expires", &expires);
    page.row("signed with key", view.key_id.as_deref().unwrap_or_default());
    let (meets, next) = outlook(view);
    page.row("a request now", &meets);
    page.next_step(&next);
    page.text
}

/// What a request meets, and what to do about it.
fn outlook(view: &SessionView) -> (String, String) {
    let backend = view.backend.as_deref().unwrap_or("its backend");
    let look = format!("'lbctl describe backend {backend}'");
    if view.verdict == "kept" {
        return (format!("goes to {backend}"), look);
    }
    let (why, next) = match view.verdict.as_str() {
        "malformed" => (
            "it is no session of this balancer".to_owned(),
            "copy the whole value of the cookie that the pool sets".to_owned(),
        ),
        "unknown_key" => (
            "its key is not known, or is not believed any more".to_owned(),
            "'lbctl get session-keys'".to_owned(),
        ),
        "bad_signature" => (
            "it was changed on the way, or forged".to_owned(),
            "many of them are an attack: 'lbctl describe pool NAME' counts them".to_owned(),
        ),
        "expired" => ("it has expired".to_owned(), "nothing to do".to_owned()),
        "wrong_pool" => (
            "its pool is gone, or has no sessions by cookie any more".to_owned(),
            "'lbctl get pools'".to_owned(),
        ),
        "gone" => {
            (format!("{backend} is not in the pool any more"), "'lbctl get backends'".to_owned())
        }
        "other_incarnation" => {
            (format!("{backend} was removed, and another was added under its id"), look)
        }
        other => (format!("{backend} cannot serve it ({other})"), look),
    };
    let refused = matches!(
        view.verdict.as_str(),
        "gone" | "other_incarnation" | "disabled" | "drained" | "down" | "ejected" | "at_cap"
    );
    let meets = if view.strict && refused { "is answered 503" } else { "gets another backend" };
    (format!("{meets}: {why}"), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(pool: pb::Pool, settings: &Sessions) -> Result<pb::Pool, Failure> {
        let mut pool = pool;
        edit(&mut pool, settings).map(|()| pool)
    }

    fn sticky(text: &str) -> Sessions {
        Sessions { sticky: Some(text.to_owned()), ..Sessions::default() }
    }

    #[test]
    fn the_settings_of_a_cookie_go_with_it() {
        let ttl = Some(Duration::from_secs(60));
        let cookie = Sessions { session_ttl: ttl, ..sticky("cookie") };
        let pool = edited(pb::Pool::default(), &cookie).unwrap();
        assert_eq!(pool.affinity.as_ref().unwrap().ttl_ms, 60_000);
        let same = edited(pool.clone(), &sticky("cookie")).unwrap();
        assert_eq!(same, pool);
        let header = edited(pool, &sticky("header:x-user")).unwrap().affinity.unwrap();
        assert_eq!(
            (header.kind.as_str(), header.header.as_str(), header.ttl_ms),
            ("header", "x-user", 0)
        );
    }

    #[test]
    fn settings_without_a_cookie_are_refused() {
        let alone = Sessions { session_strict: Some(true), ..Sessions::default() };
        let failure = edited(pb::Pool::default(), &alone).unwrap_err();
        assert!(failure.message.contains("--sticky cookie"), "{failure}");
    }

    #[test]
    fn the_address_of_the_client_is_an_algorithm() {
        let pool =
            edited(pb::Pool { choices: 3, ..Default::default() }, &sticky("ip_hash")).unwrap();
        assert_eq!((pool.algorithm.as_str(), pool.choices), ("ip_hash", 0));
        assert_eq!(pool.affinity.unwrap().kind, "none");
    }

    #[test]
    fn a_page_tells_where_a_session_leads() {
        let view = SessionView {
            verdict: "down".to_owned(),
            pool: Some("web".to_owned()),
            backend: Some("backend2".to_owned()),
            address: Some("10.0.0.2:80".to_owned()),
            incarnation: Some(7),
            expires_unix_ms: Some(3_600_000),
            key_id: Some("0a0b0c0d".to_owned()),
            strict: false,
        };
        let text = page(&view, 0);
        assert!(text.contains("gets another backend: backend2 cannot serve it (down)"), "{text}");
        let strict = page(&SessionView { strict: true, ..view.clone() }, 0);
        assert!(strict.contains("is answered 503"), "{strict}");
        let forged = SessionView { verdict: "bad_signature".to_owned(), ..view };
        assert!(page(&forged, 0).contains("web (as it says"), "{}", page(&forged, 0));
    }
}
