//! The control plane and the proxies.

use std::time::Duration;

use super::{Facts, Group};
use crate::{clock, command::describe::next_look, format, view::ProxyView};

/// Clocks further apart make ages and `SINCE` columns misleading.
const SKEW_MAX: Duration = Duration::from_secs(5);

pub(super) fn control_plane(facts: &Facts, group: &mut Group<'_>) {
    group.ok("control_plane_reachable", format!("answers at {}", facts.server));
    let (theirs, ours) = (&facts.build_version, env!("CARGO_PKG_VERSION"));
    if theirs == ours {
        group.ok("control_plane_version", format!("version {theirs}, as this lbctl"));
    } else {
        let message = format!("it has version {theirs}, this lbctl {ours}");
        group.warn("control_plane_version", None, message, "update the older of the two");
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
    match facts.skew {
        Some(skew) if skew > SKEW_MAX => {
            let message = format!("its clock and this one are {} apart", format::duration(skew));
            group.warn(
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

pub(super) fn proxies(facts: &Facts, group: &mut Group<'_>) {
    for refused in &facts.refused {
        let message = refused.sentence(clock::unix_ms());
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
        let seen = format::duration(Duration::from_millis(proxy.last_seen_ms));
        let at = format!("at revision {}, last heard of {seen} ago", proxy.applied_revision);
        let remedy = next_look(proxy);
        match proxy.state.as_str() {
            // Stopped in order, it serves nobody, and is missed by nobody.
            "synced" | "stopped" => {}
            "rejected" => {
                let mut why: Vec<String> = proxy.rejections.iter().map(|r| r.sentence()).collect();
                why.extend(proxy.refusal.clone());
                group.fail(
                    "proxy_state",
                    object(),
                    format!("{id} refused {}", why.join("; ")),
                    remedy,
                );
            }
            state => group.fail("proxy_state", object(), format!("{id} is {state} {at}"), remedy),
        }
        if proxy.is_connected() && proxy.build_version != facts.build_version {
            let message = format!(
                "{id} has version {}, the control plane {}",
                proxy.build_version, facts.build_version
            );
            group.warn("proxy_version", object(), message, "update the older of the two");
        }
    }
    let all = format::count(facts.live_proxies().count(), "proxy", "proxies");
    group.else_ok("proxy_state", format!("{all} in sync"));
}
