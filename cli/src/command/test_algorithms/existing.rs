//! The same question to a balancer that runs: does the pool behind a URL do what its algorithm
//! promises?
//!
//! Who served is read from the control plane's statistics, so that backends may answer whatever
//! they like. Requests of others are counted as well; when there were some, shares can only be
//! judged roughly.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use hyper::Uri;
use lb_core::{
    model::{ListenerName, PoolName, Route},
    routing::explain,
};
use tokio::time::{Instant, sleep};

use super::{
    CROWD_PER_BACKEND,
    judge::{self, Finding, Member},
    visitor::Visitor,
};
use crate::{
    args::Global,
    client::Client,
    command::{Session, TIMEOUT, get},
    exit::{Exit, Failure},
    output::{Screen, note},
    view::{BackendView, ProxyView},
};

/// How long proxies may take to report what they served.
const REPORT: Duration = Duration::from_secs(5);

/// Between two looks at what they reported.
const LOOK: Duration = Duration::from_millis(100);

/// Sends the requests and judges who served them.
pub(super) async fn examine(url: &Uri, requests: u32, global: &Global) -> Result<Finding, Failure> {
    let client = Client::connect(&global.server, global.timeout.unwrap_or(TIMEOUT)).await?;
    let session = Session { client, screen: Screen::plain() };
    let place = Place::read(url).await?;
    let pool = pool_of(&session, &place).await?;
    let pools = get::pools(&session).await?;
    let algorithm = pools.iter().find(|view| view.name == pool.as_str());
    let algorithm = algorithm.map(|view| view.algorithm.clone()).unwrap_or_default();
    let before = get::backends(&session, pool.as_str()).await?;
    let members: Vec<Member> = before
        .iter()
        .filter(|backend| backend.serves())
        .map(|backend| Member { server: backend.id.clone(), weight: backend.weight })
        .collect();
    if members.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            format!(
                "pool {pool} has no backend that serves; 'lbctl describe pool {pool}' says why"
            ),
        ));
    }
    let plan = Plan::of(&algorithm, &members, requests);
    note(&format!("sending {} requests to pool {pool}, {algorithm} ...", plan.requests));
    place.visit(plan.requests, plan.crowd).await?;
    let served = served(&session, &pool, &before, plan.requests).await?;
    Ok(plan.judge(&algorithm, &members, &served))
}

/// Where to send requests.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    host: String,
    target: String,
}

impl Place {
    async fn read(url: &Uri) -> Result<Self, Failure> {
        let host = url.host().unwrap_or_default();
        let port = url.port_u16().unwrap_or(80);
        // Brackets belong to the URL, not to the address.
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let unknown = |why: String| {
            Failure::new(Exit::Failed, format!("cannot find {host}: {why}; correct --url"))
        };
        let found = tokio::net::lookup_host((name, port)).await;
        let address = found.map_err(|error| unknown(error.to_string()))?.next();
        let address = address.ok_or_else(|| unknown("it has no address".to_owned()))?;
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        let host = url.authority().map_or(host, |authority| authority.as_str());
        Ok(Self { address, host: host.to_owned(), target: target.to_owned() })
    }

    /// Sends that many requests, so many at a time.
    async fn visit(&self, requests: usize, crowd: usize) -> Result<(), Failure> {
        let shares =
            (0..crowd).map(|index| requests / crowd + usize::from(index < requests % crowd));
        let visits: Vec<_> = shares
            .map(|share| {
                let mut visitor = Visitor::of(self.address, &self.host, &self.target);
                tokio::spawn(async move {
                    for _ in 0..share {
                        visitor.visit(None).await?;
                    }
                    Ok::<(), Failure>(())
                })
            })
            .collect();
        for visit in visits {
            visit.await.map_err(|error| {
                Failure::new(Exit::Failed, format!("a client of the test failed: {error}"))
            })??;
        }
        Ok(())
    }
}

/// The one pool that the requests go to.
async fn pool_of(session: &Session, place: &Place) -> Result<PoolName, Failure> {
    let routes: Vec<Route> = get::routes(session).await?.into_iter().collect::<Result<_, _>>()?;
    let all: Vec<&Route> = routes.iter().collect();
    let listener = ListenerName::new(&listener_at(&get::proxies(session).await?, place.address))?;
    let explanation = explain(&all, &listener, &place.host, &place.target);
    let (host, target) = (&place.host, &place.target);
    let Some(route) = explanation.chosen else {
        return Err(Failure::new(
            Exit::NotFound,
            format!(
                "no route of listener {listener} matches http://{host}{target}; 'lbctl explain-route \
                 http://{host}{target} --listener {listener}' says why"
            ),
        ));
    };
    route.pools.single().cloned().ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!(
                "route {} shares its requests among several pools; test a URL whose route has one",
                route.name
            ),
        )
    })
}

/// The listener of the proxy at this port; the usual one when none tells.
fn listener_at(proxies: &[ProxyView], address: SocketAddr) -> String {
    let at = |text: &str| text.parse().is_ok_and(|at: SocketAddr| at.port() == address.port());
    let mut listens = proxies.iter().flat_map(|proxy| &proxy.listen);
    let found = listens.find(|listen| at(&listen.address));
    found.map_or_else(|| "default".to_owned(), |listen| listen.listener.clone())
}

/// Who served how many since `before`, once as many are reported as were sent.
async fn served(
    session: &Session,
    pool: &PoolName,
    before: &[BackendView],
    sent: usize,
) -> Result<BTreeMap<String, usize>, Failure> {
    let deadline = Instant::now() + REPORT;
    loop {
        let counts = difference(before, &get::backends(session, pool.as_str()).await?);
        let all: usize = counts.values().sum();
        if all >= sent {
            return Ok(counts);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Exit::TimedOut,
                format!(
                    "{sent} requests were answered, and only {all} are reported for pool {pool}: \
                     the URL may not lead to a proxy of this control plane, or the proxies answered \
                     by themselves; 'lbctl stats' tells"
                ),
            ));
        }
        sleep(LOOK).await;
    }
}

fn difference(before: &[BackendView], after: &[BackendView]) -> BTreeMap<String, usize> {
    let former = |id: &str| {
        let found = before.iter().find(|backend| backend.id == id);
        found.map_or(0, |backend| backend.traffic.requests_total)
    };
    after
        .iter()
        .map(|backend| {
            let more = backend.traffic.requests_total.saturating_sub(former(&backend.id));
            (backend.id.clone(), usize::try_from(more).unwrap_or(usize::MAX))
        })
        .collect()
}

/// How many requests show what an algorithm promises.
#[derive(Debug)]
struct Plan {
    requests: usize,
    /// At the same time.
    crowd: usize,
}

impl Plan {
    fn of(algorithm: &str, members: &[Member], requests: u32) -> Self {
        let weights: u32 = members.iter().map(|member| member.weight).sum();
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        match algorithm {
            "round_robin" => Self { requests: judge::rounded(requests, count), crowd: 1 },
            "weighted_round_robin" => {
                Self { requests: judge::rounded(requests, weights), crowd: 1 }
            }
            "ip_hash" => Self { requests: judge::rounded(requests, 1), crowd: 1 },
            // A rough share needs enough requests to be one.
            _ => Self {
                requests: judge::rounded(requests.max(weights.saturating_mul(20)), weights),
                crowd: members.len() * CROWD_PER_BACKEND,
            },
        }
    }

    fn judge(
        &self,
        algorithm: &str,
        members: &[Member],
        served: &BTreeMap<String, usize>,
    ) -> Finding {
        let answers: Vec<String> =
            served.iter().flat_map(|(id, count)| vec![id.clone(); *count]).collect();
        let others = answers.len() - self.requests.min(answers.len());
        let equal: Vec<Member> =
            members.iter().map(|member| Member { weight: 1, ..member.clone() }).collect();
        let with_others =
            format!("give or take half, since {others} requests of others came meanwhile");
        let mut finding = match (algorithm, others) {
            ("round_robin", 0) => judge::exact(
                algorithm,
                "every backend the same number, exactly",
                &equal,
                &answers,
                |_| 1,
            ),
            ("round_robin", _) => {
                let promise = format!("every backend the same number, {with_others}");
                judge::rough(algorithm, &promise, &equal, &answers)
            }
            ("weighted_round_robin", 0) => {
                let promise = "in proportion to the weights, exactly";
                judge::exact(algorithm, promise, members, &answers, |member| member.weight)
            }
            ("ip_hash", 0) => {
                judge::single(algorithm, "one backend for one client", members, &answers)
            }
            ("ip_hash", _) => {
                let promise = "nothing: requests of other clients came meanwhile";
                let finding = judge::single(algorithm, promise, members, &answers);
                Finding { broken: Vec::new(), ..finding }
            }
            _ => {
                let promise = "in proportion to the weights, give or take half";
                judge::rough(algorithm, promise, members, &answers)
            }
        };
        let strangers = served.iter().filter(|(id, count)| {
            **count > 0 && members.iter().all(|member| member.server != **id)
        });
        finding.broken.extend(strangers.map(|(id, count)| {
            format!("{id} answered {count} requests and was not among those that serve")
        }));
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Vec<Member> {
        let member = |(name, weight): (&str, u32)| Member { server: name.to_owned(), weight };
        [("b1", 1), ("b2", 2), ("b3", 1)].map(member).to_vec()
    }

    fn judged(algorithm: &str, requests: u32, counts: [usize; 3]) -> Finding {
        let ids = ["b1", "b2", "b3"].map(str::to_owned);
        let served = ids.into_iter().zip(counts).collect();
        Plan::of(algorithm, &members(), requests).judge(algorithm, &members(), &served)
    }

    #[test]
    fn each_algorithm_is_held_against_its_own_promise() {
        assert!(judged("round_robin", 30, [10, 10, 10]).broken.is_empty());
        assert_eq!(judged("round_robin", 30, [9, 11, 10]).broken.len(), 2);
        assert!(judged("weighted_round_robin", 40, [10, 20, 10]).broken.is_empty());
        assert!(!judged("weighted_round_robin", 40, [14, 13, 13]).broken.is_empty());
        assert!(judged("ip_hash", 40, [0, 40, 0]).broken.is_empty());
        assert!(!judged("ip_hash", 40, [0, 39, 1]).broken.is_empty());
        assert!(judged("least_connections", 80, [22, 38, 20]).broken.is_empty());
        assert!(!judged("least_connections", 80, [0, 60, 20]).broken.is_empty());
    }

    #[test]
    fn requests_of_others_make_it_rough() {
        let finding = judged("round_robin", 30, [12, 11, 10]);
        assert!(finding.broken.is_empty(), "{finding:?}");
        assert!(finding.promise.contains("3 requests of others"), "{finding:?}");
    }

    #[test]
    fn a_backend_that_should_not_serve_is_noticed() {
        let served = [("b1", 15), ("b3", 15), ("b2", 2)];
        let served = served.map(|(id, count)| (id.to_owned(), count)).into();
        let members: Vec<Member> = members().into_iter().filter(|m| m.server != "b2").collect();
        let plan = Plan { requests: 32, crowd: 1 };
        let broken = plan.judge("round_robin", &members, &served).broken;
        assert!(broken.iter().any(|line| line.contains("b2 answered 2 requests")), "{broken:?}");
    }
}
