//! What is right and what is wrong: a pure function of what the control plane tells.

use std::{collections::BTreeSet, fmt, time::Duration};

use lb_core::model::Address;
use serde::Serialize;

use super::super::remedy;
use crate::{
    format,
    view::{AnyObject, BackendView, ObjectView, PoolView, ProxyView},
};

/// Clocks further apart make ages and `SINCE` columns misleading.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// Everything that is judged.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) server: String,
    pub(super) build_version: String,
    /// Between the control plane's clock and this one; nothing if it tells no time.
    pub(super) skew: Option<Duration>,
    pub(super) proxies: Vec<ProxyView>,
    pub(super) pools: Vec<PoolView>,
    pub(super) backends: Vec<BackendView>,
    pub(super) listeners: Vec<ObjectView>,
    pub(super) routes: Vec<ObjectView>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    Warning,
    Failed,
}

/// One line of the list.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) group: &'static str,
    /// A stable name for programs.
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) message: String,
    /// What to do, unless all is well.
    pub(super) remedy: Option<String>,
}

/// The only finding when nobody can be asked.
pub(super) fn unreachable(why: &str) -> Finding {
    let (message, remedy) = why.split_once("; ").unwrap_or((why, "look at its log"));
    Finding {
        group: "control plane",
        check: "control_plane_reachable",
        level: Level::Failed,
        message: message.to_owned(),
        remedy: Some(remedy.to_owned()),
    }
}

/// Judges everything, in the order in which it is to be mended.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    control_plane(facts, &mut Group { name: "control plane", findings: &mut findings });
    proxies(facts, &mut Group { name: "proxies", findings: &mut findings });
    listeners(facts, &mut Group { name: "listeners", findings: &mut findings });
    routes(facts, &mut Group { name: "routes", findings: &mut findings });
    pools(facts, &mut Group { name: "pools", findings: &mut findings });
    backends(facts, &mut Group { name: "backends", findings: &mut findings });
    findings
}

struct Group<'a> {
    name: &'static str,
    findings: &'a mut Vec<Finding>,
}

impl Group<'_> {
    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.push(check, Level::Ok, message.into(), None);
    }

    fn warn(&mut self, check: &'static str, message: String, remedy: impl Into<String>) {
        self.push(check, Level::Warning, message, Some(remedy.into()));
    }

    fn fail(&mut self, check: &'static str, message: String, remedy: impl Into<String>) {
        self.push(check, Level::Failed, message, Some(remedy.into()));
    }

    fn push(&mut self, check: &'static str, level: Level, message: String, remedy: Option<String>) {
        self.findings.push(Finding { group: self.name, check, level, message, remedy });
    }

    /// One line when nothing of this group was found.
    fn else_ok(&mut self, check: &'static str, message: impl Into<String>) {
        if self.findings.iter().all(|finding| finding.group != self.name) {
            self.ok(check, message);
        }
    }
}

fn control_plane(facts: &Facts, group: &mut Group<'_>) {
    group.ok("control_plane_reachable", format!("answers at {}", facts.server));
    let (theirs, ours) = (&facts.build_version, env!("CARGO_PKG_VERSION"));
    if theirs == ours {
        group.ok("control_plane_version", format!("version {theirs}, as this lbctl"));
    } else {
        let message = format!("it has version {theirs}, this lbctl {ours}");
        group.warn("control_plane_version", message, "update the older of the two");
    }
    match facts.skew {
        Some(skew) if skew > SKEW_MAX => {
            let message = format!("its clock and this one are {} apart", format::duration(skew));
            group.warn(
                "clock_skew",
                message,
                "set both by a time server; ages are wrong until then",
            );
        }
        Some(_) => group.ok("clock_skew", "its clock agrees with this one"),
        None => {}
    }
}

fn proxies(facts: &Facts, group: &mut Group<'_>) {
    if facts.proxies.is_empty() {
        let remedy = "start one with 'lbctl data-plane', or the whole balancer with 'lbctl dev'";
        group.fail("proxies_connected", "no proxy is connected: nothing serves".to_owned(), remedy);
        return;
    }
    for proxy in &facts.proxies {
        let id = &proxy.id;
        let seen = format::duration(Duration::from_millis(proxy.last_seen_ms));
        let at = format!("at revision {}, last heard of {seen} ago", proxy.applied_revision);
        let remedy = format!("'lbctl describe proxy {id}'");
        match proxy.state.as_str() {
            "synced" => {}
            "rejected" => {
                let mut why: Vec<String> = proxy.rejections.iter().map(|r| r.sentence()).collect();
                why.extend(proxy.refusal.clone());
                group.fail("proxy_state", format!("{id} refused {}", why.join("; ")), remedy);
            }
            state => group.fail("proxy_state", format!("{id} is {state} {at}"), remedy),
        }
        if proxy.state != "lost" && proxy.build_version != facts.build_version {
            let message = format!(
                "{id} has version {}, the control plane {}",
                proxy.build_version, facts.build_version
            );
            group.warn("proxy_version", message, "update the older of the two");
        }
    }
    let all = format::count(facts.proxies.len(), "proxy", "proxies");
    group.else_ok("proxy_state", format!("{all} in sync"));
}

fn listeners(facts: &Facts, group: &mut Group<'_>) {
    let known: BTreeSet<&str> = facts.listeners.iter().map(ObjectView::name).collect();
    for proxy in live(facts) {
        let bound: BTreeSet<&str> =
            proxy.listen.iter().map(|listen| listen.listener.as_str()).collect();
        for name in known.difference(&bound) {
            group.warn(
                "listener_address",
                format!("{} has no address for listener {name}", proxy.id),
                format!(
                    "start it with '--listen {name}=HOST:PORT', or 'lbctl remove-listener {name}'"
                ),
            );
        }
        for name in bound.difference(&known) {
            group.warn(
                "listener_object",
                format!("{} listens for {name:?}, and there is no such listener", proxy.id),
                format!("'lbctl add-listener {name}'; until then nothing is routed there"),
            );
        }
    }
    let all = format::count(known.len(), "listener", "listeners");
    group.else_ok("listener_address", format!("{all} with an address at every proxy"));
}

fn routes(facts: &Facts, group: &mut Group<'_>) {
    let bound: BTreeSet<&str> =
        live(facts).flat_map(|p| &p.listen).map(|listen| listen.listener.as_str()).collect();
    let mut number = 0;
    for route in facts.routes.iter().filter_map(|object| match &object.object {
        AnyObject::Route(route) => Some(route),
        _ => None,
    }) {
        number += 1;
        let name = &route.name;
        if !facts.proxies.is_empty() && !bound.contains(route.listener.as_str()) {
            group.warn(
                "route_reachable",
                format!("route {name} never matches: no proxy listens for {}", route.listener),
                format!("start proxies with '--listen {}=HOST:PORT'", route.listener),
            );
        }
        for share in route.pools.iter().filter(|share| share.weight > 0) {
            if !serves(facts, &share.pool) {
                group.fail(
                    "route_served",
                    format!("route {name} goes to pool {}, which cannot serve", share.pool),
                    format!("'lbctl describe pool {}'", share.pool),
                );
            }
        }
    }
    if number == 0 {
        let remedy = "'lbctl add-route NAME --pool POOL'";
        group.fail("route_exists", "there are no routes: every answer is 404".to_owned(), remedy);
    }
    let all = format::count(number, "route", "routes");
    group.else_ok("route_served", format!("{all} with a pool that can serve"));
}

fn pools(facts: &Facts, group: &mut Group<'_>) {
    for pool in &facts.pools {
        let name = &pool.name;
        let failing: Vec<_> =
            pool.source_status.iter().filter(|s| s.failing_since_unix_ms.is_some()).collect();
        for source in &failing {
            let message =
                format!("pool {name}: {} fails: {}", source.source, source.failure.sentence());
            group.fail("pool_source", message, source.remedy(name).unwrap_or_default());
        }
        let total = pool.backends.map_or(0, |counts| counts.total());
        if total == 0 && failing.is_empty() {
            let remedy = format!("'lbctl add-backend HOST:PORT --pool {name}'");
            group.warn("pool_backends", format!("pool {name} has no backends"), remedy);
        } else if total > 0 && !serves(facts, name) {
            let message = format!("pool {name} has no backend that serves, of {total}");
            group.fail("pool_serves", message, format!("'lbctl describe pool {name}'"));
        }
        if pool.health == "none" {
            let message = format!("pool {name} does not check its backends");
            let remedy = format!("'lbctl set-pool {name} --health http', or --health tcp");
            group.warn("pool_checks", message, remedy);
        }
    }
    let all = format::count(facts.pools.len(), "pool", "pools");
    group.else_ok("pool_serves", format!("{all} with checked backends that serve"));
}

fn backends(facts: &Facts, group: &mut Group<'_>) {
    let elsewhere: Vec<&str> =
        live(facts).filter(|proxy| proxy.elsewhere).map(|proxy| proxy.id.as_str()).collect();
    for backend in &facts.backends {
        let BackendView { id, address, reason, .. } = backend;
        let next = || remedy::next_step(backend);
        match (backend.admin_state, backend.health) {
            ("enabled", "down") => {
                let message = format!("{id} {address} is down: {}", reason.sentence());
                group.fail("backend_up", message, next());
            }
            ("enabled", "unknown") => {
                group.warn("backend_up", format!("{id} {address} is not checked yet"), next());
            }
            _ => {}
        }
        let is_loopback = address.parse().is_ok_and(|address: Address| address.is_loopback());
        if is_loopback && !elsewhere.is_empty() {
            group.warn(
                "backend_loopback",
                format!("{id} {address} means its own machine to {}", elsewhere.join(", ")),
                format!("'lbctl set-backend {id} --address HOST:PORT' with one that all can reach"),
            );
        }
    }
    let enabled = facts.backends.iter().filter(|b| b.admin_state == "enabled").count();
    let all = format::count(enabled, "enabled backend", "enabled backends");
    group.else_ok("backend_up", format!("{all}, none of them down"));
}

fn live(facts: &Facts) -> impl Iterator<Item = &ProxyView> {
    facts.proxies.iter().filter(|proxy| proxy.state != "lost")
}

fn serves(facts: &Facts, pool: &str) -> bool {
    facts.backends.iter().any(|backend| backend.pool == pool && backend.serves())
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;

    fn proxy(id: &str, state: &str) -> ProxyView {
        let listen_addresses = vec![pb::ListenAddress {
            listener: "extra".to_owned(),
            address: "127.0.0.1:8080".to_owned(),
        }];
        ProxyView::from(pb::Proxy {
            id: id.to_owned(),
            state: state.to_owned(),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            listen_addresses,
            ..pb::Proxy::default()
        })
    }

    fn facts(proxies: Vec<ProxyView>) -> Facts {
        let pool = pb::Pool { name: "default".to_owned(), ..pb::Pool::default() };
        Facts {
            server: "http://a:9400".to_owned(),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            skew: Some(Duration::from_secs(60)),
            proxies,
            pools: vec![PoolView::from(pb::PoolStatus {
                pool: Some(pool),
                down: 1,
                ..pb::PoolStatus::default()
            })],
            backends: vec![BackendView::from(pb::BackendView {
                backend: Some(pb::Backend {
                    id: "b1".to_owned(),
                    pool: "default".to_owned(),
                    address: "localhost:8001".to_owned(),
                    ..pb::Backend::default()
                }),
                status: Some(pb::BackendStatus {
                    health: pb::Health::Down.into(),
                    reason: Some(pb::Reason {
                        code: "check_status".to_owned(),
                        message: "404".to_owned(),
                    }),
                    ..pb::BackendStatus::default()
                }),
                ..pb::BackendView::default()
            })],
            listeners: Vec::new(),
            routes: Vec::new(),
        }
    }

    fn found(facts: &Facts) -> Vec<(&'static str, Level)> {
        judge(facts).iter().map(|finding| (finding.check, finding.level)).collect()
    }

    #[test]
    fn whatever_is_wrong_is_found_and_has_a_remedy() {
        let mut elsewhere = proxy("p1", "lost");
        elsewhere.build_version = "0.0.1".to_owned();
        let mut remote = proxy("p2", "synced");
        remote.build_version = "0.0.1".to_owned();
        remote.elsewhere = true;
        let facts = facts(vec![elsewhere, remote]);
        assert_eq!(
            found(&facts),
            [
                ("control_plane_reachable", Level::Ok),
                ("control_plane_version", Level::Ok),
                ("clock_skew", Level::Warning),
                ("proxy_state", Level::Failed),
                ("proxy_version", Level::Warning),
                ("listener_object", Level::Warning),
                ("route_exists", Level::Failed),
                ("pool_serves", Level::Failed),
                ("backend_up", Level::Failed),
                ("backend_loopback", Level::Warning),
            ]
        );
        for finding in judge(&facts) {
            assert_eq!(finding.remedy.is_none(), finding.level == Level::Ok, "{finding:?}");
        }
        let of_status = judge(&facts).into_iter().find(|f| f.check == "backend_up").unwrap();
        assert!(of_status.remedy.unwrap().contains("--health-path"));
    }

    #[test]
    fn without_a_proxy_nothing_serves() {
        assert!(found(&facts(Vec::new())).contains(&("proxies_connected", Level::Failed)));
    }
}
