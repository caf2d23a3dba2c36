//! What is right and what is wrong: a pure function of what the control plane tells.

mod facts;
mod loops;
mod planes;
mod routing;
mod serving;

use std::fmt;

use serde::Serialize;

pub(super) use self::facts::Facts;

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
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
    /// `kind/name` of what it is about, unless it is about many.
    pub(super) object: Option<String>,
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
        object: None,
        message: message.to_owned(),
        remedy: Some(remedy.to_owned()),
    }
}

/// Judges everything, in the order in which it is to be mended.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    planes::control_plane(facts, &mut Group { name: "control plane", findings: &mut findings });
    planes::proxies(facts, &mut Group { name: "proxies", findings: &mut findings });
    routing::listeners(facts, &mut Group { name: "listeners", findings: &mut findings });
    routing::routes(facts, &mut Group { name: "routes", findings: &mut findings });
    serving::pools(facts, &mut Group { name: "pools", findings: &mut findings });
    let mut backends = Group { name: "backends", findings: &mut findings };
    loops::backends(facts, &mut backends);
    serving::backends(facts, &mut backends);
    findings
}

/// What is wrong with one object, the worst first.
pub(super) fn about(facts: &Facts, kind: &str, name: &str) -> Vec<Finding> {
    let object = format!("{kind}/{name}");
    let mut findings = judge(facts);
    findings.retain(|finding| finding.object.as_deref() == Some(&*object));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

struct Group<'a> {
    name: &'static str,
    findings: &'a mut Vec<Finding>,
}

impl Group<'_> {
    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.push(check, Level::Ok, None, message.into(), None);
    }

    /// About one object, which is named `kind/name`.
    fn warn(
        &mut self,
        check: &'static str,
        object: impl Into<Option<String>>,
        message: String,
        remedy: impl Into<String>,
    ) {
        self.push(check, Level::Warning, object.into(), message, Some(remedy.into()));
    }

    /// The same, for what keeps requests from being served.
    fn fail(
        &mut self,
        check: &'static str,
        object: impl Into<Option<String>>,
        message: String,
        remedy: impl Into<String>,
    ) {
        self.push(check, Level::Failed, object.into(), message, Some(remedy.into()));
    }

    /// A pool cannot serve: a failure, or a warning where something answers in its place.
    fn cannot_serve(
        &mut self,
        check: &'static str,
        object: impl Into<Option<String>>,
        message: String,
        pool: &str,
        facts: &Facts,
    ) {
        let remedy = format!("'lbctl describe pool {pool}'");
        match facts.instead(pool) {
            Some(instead) => self.warn(check, object, format!("{message}; {instead}"), remedy),
            None => self.fail(check, object, message, remedy),
        }
    }

    fn push(
        &mut self,
        check: &'static str,
        level: Level,
        object: Option<String>,
        message: String,
        remedy: Option<String>,
    ) {
        self.findings.push(Finding { group: self.name, check, level, object, message, remedy });
    }

    /// One line when nothing of this group was found.
    fn else_ok(&mut self, check: &'static str, message: impl Into<String>) {
        if self.findings.iter().all(|finding| finding.group != self.name) {
            self.ok(check, message);
        }
    }
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
    use std::time::Duration;

    use lb_core::model::{
        HostMatch, ListenerName, PathMatch, PoolName, Route, RouteName, RoutePools,
    };
    use lb_proto::v1 as pb;

    use super::*;
    use crate::view::{BackendView, ObjectView, PoolView, ProxyView};

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
            takes_writes: Some(true),
            proxies,
            refused: Vec::new(),
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
                ("control_plane_store", Level::Ok),
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
    fn a_backend_that_is_a_proxy_is_found() {
        let mut facts = facts(vec![proxy("p1", "synced")]);
        assert!(found(&facts).iter().all(|(check, _)| *check != "backend_leads_back"));
        "localhost:8080".clone_into(&mut facts.backends[0].address);
        facts.backends[0].resolved_addresses = vec!["127.0.0.1:8080".to_owned()];
        let findings = about(&facts, "backend", "b1");
        let back = findings.iter().find(|f| f.check == "backend_leads_back").unwrap();
        assert_eq!(back.message, "b1 localhost:8080 is listener extra of proxy p1");
    }

    #[test]
    fn without_a_proxy_nothing_serves() {
        assert!(found(&facts(Vec::new())).contains(&("proxies_connected", Level::Failed)));
        let stopped = vec![proxy("p1", "stopped")];
        assert!(found(&facts(stopped)).contains(&("proxies_connected", Level::Failed)));
    }

    #[test]
    fn a_proxy_that_was_stopped_in_order_is_as_it_should_be() {
        let findings = found(&facts(vec![proxy("p1", "synced"), proxy("p2", "stopped")]));
        assert!(findings.contains(&("proxy_state", Level::Ok)), "{findings:?}");
        let findings = judge(&facts(vec![proxy("p1", "synced"), proxy("p2", "lost")]));
        let lost = findings.iter().find(|f| f.check == "proxy_state").unwrap();
        assert!(lost.remedy.as_deref().unwrap().contains("lbctl forget-proxy p2"), "{lost:?}");
    }

    #[test]
    fn what_a_fallback_answers_is_a_warning() {
        let level = |facts: &Facts| {
            let of = |check| judge(facts).iter().find(|f| f.check == check).unwrap().level;
            (of("route_served"), of("pool_serves"))
        };
        let mut facts = facts(vec![proxy("p1", "synced")]);
        facts.routes = vec![route("all", "extra", "", "/")];
        assert_eq!(level(&facts), (Level::Failed, Level::Failed));
        // A fallback pool that has nothing either is none.
        facts.pools[0].fallback_pool = Some("spare".to_owned());
        assert_eq!(level(&facts), (Level::Failed, Level::Failed));
        let mut spare = facts.backends[0].clone();
        "spare".clone_into(&mut spare.pool);
        spare.health = "up";
        facts.backends.push(spare);
        assert_eq!(level(&facts), (Level::Warning, Level::Warning));
        for finding in judge(&facts).iter().filter(|finding| finding.check == "pool_serves") {
            assert!(finding.message.ends_with("; its fallback pool spare answers"), "{finding:?}");
        }
        facts.pools[0].fallback_pool = None;
        let answer = pb::StaticAnswer { status: 200, ..pb::StaticAnswer::default() };
        let pool = pb::Pool {
            name: "default".to_owned(),
            fallback_answer: Some(answer),
            ..pb::Pool::default()
        };
        facts.pools[0].fallback_answer = PoolView::from(pool).fallback_answer;
        assert_eq!(level(&facts), (Level::Warning, Level::Warning));
    }

    #[test]
    fn a_proxy_that_is_not_let_in_is_a_failure() {
        let mut facts = facts(vec![proxy("p1", "synced")]);
        facts.refused = vec![pb::RefusedProxy::default().into()];
        assert!(found(&facts).contains(&("proxy_refused", Level::Failed)));
    }

    #[test]
    fn a_store_that_takes_no_writes_is_a_failure() {
        let mut facts = facts(vec![proxy("p1", "synced")]);
        facts.takes_writes = Some(false);
        assert!(found(&facts).contains(&("control_plane_store", Level::Failed)));
        // A control plane that does not tell is not accused.
        facts.takes_writes = None;
        assert!(found(&facts).iter().all(|(check, _)| *check != "control_plane_store"));
    }

    fn route(name: &str, listener: &str, host: &str, path: &str) -> Route {
        Route {
            name: RouteName::new(name).unwrap(),
            listener: ListenerName::new(listener).unwrap(),
            host: HostMatch::parse_stored(host).unwrap(),
            path: PathMatch::parse_stored("", path).unwrap(),
            pools: RoutePools::one(PoolName::default_pool()),
        }
    }

    fn listener(name: &str) -> ObjectView {
        let listener = pb::Listener { name: name.to_owned(), ..pb::Listener::default() };
        let object = Some(pb::object::Object::Listener(listener));
        ObjectView::read(pb::Object { object, revision: 1 }).unwrap()
    }

    #[test]
    fn every_way_in_which_a_route_never_matches_is_told() {
        let mut facts = facts(vec![proxy("p1", "synced")]);
        facts.routes = vec![
            route("port", "extra", "a.example:80", "/"),
            route("query", "extra", "", "/a?b"),
            route("fragment", "extra", "", "/#top"),
            route("silent", "internal", "", "/"),
            route("twin-a", "extra", "", "/x"),
            route("twin-b", "extra", "", "/x"),
        ];
        for (name, why) in [
            ("port", "has a port"),
            ("query", "has a query"),
            ("fragment", "has a fragment"),
            ("silent", "no proxy listens for internal"),
            ("twin-b", "route twin-a matches the same requests"),
        ] {
            let findings = about(&facts, "route", name);
            let never = findings.iter().find(|f| f.check == "route_reachable").unwrap();
            assert!(never.message.contains(why), "{never:?}");
            // What gets nothing at all comes first.
            assert_eq!(findings[0].check, "route_served");
        }
        assert!(about(&facts, "route", "twin-a").iter().all(|f| f.check == "route_served"));
    }

    #[test]
    fn a_listener_that_nobody_can_reach_is_one_finding() {
        let mut facts = facts(vec![proxy("p1", "synced"), proxy("p2", "synced")]);
        facts.listeners = vec![listener("extra"), listener("internal")];
        assert!(about(&facts, "listener", "extra").is_empty());
        let [finding] = &about(&facts, "listener", "internal")[..] else { panic!("one") };
        assert!(finding.message.starts_with("no proxy has an address"), "{finding:?}");
        facts.proxies[0].listen[0].listener = "internal".to_owned();
        let [finding] = &about(&facts, "listener", "internal")[..] else { panic!("one") };
        assert_eq!(finding.message, "p2 has no address for listener internal");
    }
}
