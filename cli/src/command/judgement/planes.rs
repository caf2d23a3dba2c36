//! The control plane and the proxies.

use std::time::Duration;

use lb_proto::v1 as pb;

use super::{Facts, Group};
use crate::{command::describe::next_look, format, view::ProxyView};

/// Clocks further apart make ages and `SINCE` columns misleading.
const SKEW_MAX: Duration = Duration::from_secs(5);

pub(super) fn control_plane(facts: &Facts, group: &mut Group<'_>) {
    group.ok("control_plane_reachable", format!("answers at {}", facts.server));
    let (theirs, ours) = (&facts.build_version, env!("CARGO_PKG_VERSION"));
    if theirs == ours {
        group.ok("control_plane_version", format!("version {theirs}, as this lbctl"));
    } else {
        let message = format!("it has version {theirs}, this lbctl {ours}");
        group.advise("control_plane_version", None, message, "update the older of the two");
    }
    match facts.takes_writes {
        Some(true) => group.ok("control_plane_store", "its store takes writes"),
        Some(false) => group.fail(
            "control_plane_store",
            None,
            "its store takes no writes: what is stored serves on, nothing can be changed"
                .to_owned(),
            "make room on its disk: it goes on by itself; its log and /readyz?verbose say what fails",
        ),
        None => {}
    }
    if let Some(file) = &facts.refused_config {
        refused_config(file, facts.now_unix_ms, group);
    }
    if let Some(objects) = &facts.undeclared {
        undeclared(objects, group);
    }
    match facts.skew {
        Some(skew) if skew > SKEW_MAX => {
            let message = format!("its clock and this one are {} apart", format::duration(skew));
            group.advise(
                "clock_skew",
                None,
                message,
                "set both by a time server; ages are wrong until then",
            );
        }
        Some(_) => group.ok("clock_skew", "its clock agrees with this one"),
        None => {}
    }
}

/// What it says is not in force, and the control plane does not start with it.
fn refused_config(file: &pb::RefusedConfig, now: u64, group: &mut Group<'_>) {
    let age = format::age_of(Some(file.since_unix_ms), now);
    let reason = file.reason.clone().unwrap_or_default().message;
    let message = format!(
        "--config {} was read again {age} ago and refused, what was in force stays: {}",
        file.path,
        reason.lines().map(str::trim).collect::<Vec<_>>().join(" ")
    );
    let remedy = format!(
        "mend it before a restart, which would fail: 'lbctl validate -f {}', then send SIGHUP again",
        file.path
    );
    group.fail("config_file", None, message, remedy);
}

/// A file removes nothing, which is not what whoever comes from `nginx -s reload` expects.
fn undeclared(objects: &pb::UndeclaredObjects, group: &mut Group<'_>) {
    let pb::UndeclaredObjects { path, count, objects } = objects;
    let (are, go) = if *count == 1 { ("object is", "goes") } else { ("objects are", "go") };
    let more = match (*count as usize).saturating_sub(objects.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let first = objects.join(", ");
    let message =
        format!("{count} {are} not in --config {path} and {go} on serving: {first}{more}");
    let remedy = format!(
        "'lbctl diff --prune -f {path}' shows them, 'lbctl apply --prune -f {path}' removes them"
    );
    group.advise("config_undeclared", None, message, remedy);
}

pub(super) fn proxies(facts: &Facts, group: &mut Group<'_>) {
    for refused in &facts.refused {
        let message = refused.sentence(facts.now_unix_ms);
        group.fail("proxy_refused", None, message, refused.next_step());
    }
    if facts.proxies.iter().all(ProxyView::is_stopped) {
        let remedy = "start one with 'lbctl data-plane', or the whole balancer with 'lbctl dev'";
        group.fail(
            "proxies_connected",
            None,
            "no proxy is connected: nothing serves".to_owned(),
            remedy,
        );
        return;
    }
    for proxy in &facts.proxies {
        let id = &proxy.id;
        let object = || format!("proxy/{id}");
        // Stopped in order, it serves nobody, and is missed by nobody.
        if proxy.state != "synced" && !proxy.is_stopped() {
            group.fail("proxy_state", object(), state(proxy), next_look(proxy));
        }
        let overload = proxy.process.as_ref().and_then(|process| process.overload.as_ref());
        if let Some(overload) = overload.filter(|overload| overload.is_overloaded()) {
            let message = format!("{id} is overloaded: {}", overload.sentence());
            group.warn("proxy_overloaded", object(), message, overload.remedy());
        }
        if proxy.is_connected() && proxy.build_version != facts.build_version {
            let message = format!(
                "{id} has version {}, the control plane {}",
                proxy.build_version, facts.build_version
            );
            group.advise("proxy_version", object(), message, "update the older of the two");
        }
    }
    let all = format::count(facts.live_proxies().count(), "proxy", "proxies");
    group.else_ok("proxy_state", format!("{all} in sync"));
}

/// How a proxy is that is not in sync.
fn state(proxy: &ProxyView) -> String {
    let ProxyView { id, state, .. } = proxy;
    let revision = proxy.ahead_revision.unwrap_or(proxy.applied_revision);
    let seen = format::duration(Duration::from_millis(proxy.last_seen_ms));
    let mut line = format!("{id} {state} at revision {revision}, last heard of {seen} ago");
    for rejection in &proxy.rejections {
        line += &format!("; refused {}", rejection.sentence());
    }
    if let Some(refusal) = &proxy.refusal {
        line += &format!("; refused everything: {refusal}");
    }
    if let Some(key) = &proxy.awaited_session_key {
        line += &format!("; session key {key} does not sign before it has it");
    }
    line
}
