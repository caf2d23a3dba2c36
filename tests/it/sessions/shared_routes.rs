//! Several pools behind one route, or one in place of another: clients stay in the pool in which
//! they have a session while somebody is there, and backends see no cookie of the proxies' own.

use lb_tests::{
    backend::{Action, Backend, ok},
    client::exchange,
    cluster::{Cluster, no_checks},
};

use super::{Visit, visit};
use crate::program;

/// Says its name, and which cookies it was sent.
fn naming(name: &'static str) -> Backend {
    Backend::scripted(move |request| {
        let cookies = request.field("Cookie").unwrap_or("none");
        vec![Action::Send(ok(&format!("{name}: {cookies}")))]
    })
}

async fn run(cluster: &Cluster, args: &[&str]) {
    drop(cluster.lbctl(args).await.expect(0));
}

/// Adds a pool without checks that has one backend.
async fn add_pool(cluster: &Cluster, name: &str, backend: &Backend, settings: &[&str]) {
    let add = [&["add-pool", name, "--health", "none"], settings].concat();
    run(cluster, &add).await;
    let address = backend.address().to_string();
    run(cluster, &["add-backend", &address, "--pool", name, "--id", name]).await;
}

/// The pools `default` and `canary`, which share requests equally.
async fn shared(settings: &[&str], canary: &[&str]) -> (Cluster, [Backend; 2]) {
    let backends = [naming("main"), naming("canary")];
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    run(&cluster, &[&["set-pool", "default"], settings].concat()).await;
    cluster.add_backends(&[backends[0].address()]).await;
    add_pool(&cluster, "canary", &backends[1], canary).await;
    run(&cluster, &["set-route", "default", "--pool", "default=1", "--pool", "canary=1"]).await;
    cluster.settled().await;
    (cluster, backends)
}

/// A visit that began a session in this pool.
async fn begun_in(cluster: &Cluster, name: &str) -> Visit {
    for _ in 0..2 {
        let visit = visit(cluster.address(), None).await;
        if visit.said.starts_with(name) {
            return visit;
        }
    }
    panic!("none of two requests came to {name}");
}

#[tokio::test]
async fn a_client_whose_pool_has_nobody_left_gets_another_one_of_the_route() {
    let cookie = ["--sticky", "cookie"];
    let (cluster, _backends) = shared(&cookie, &cookie).await;
    let begun = begun_in(&cluster, "canary").await.begun();
    run(&cluster, &["disable-backend", "canary"]).await;
    let mut moved = None;
    for _ in 0..4 {
        let visit = visit(cluster.address(), Some(&begun)).await;
        assert_eq!((visit.status, visit.said.as_str()), (200, "main: none"));
        moved = visit.cookie;
    }
    // It stays there.
    run(&cluster, &["enable-backend", "canary"]).await;
    for _ in 0..2 {
        assert_eq!(visit(cluster.address(), moved.as_deref()).await.said, "main: none");
    }
    // A backend that gets no new clients keeps those that it has.
    run(&cluster, &["set-backend", "canary", "--weight", "0"]).await;
    for _ in 0..2 {
        assert_eq!(visit(cluster.address(), Some(&begun)).await.said, "canary: none");
    }
    // While another pool takes the place of its own, there it is served.
    let spare = naming("spare");
    add_pool(&cluster, "spare", &spare, &[]).await;
    run(&cluster, &["set-pool", "canary", "--fallback-pool", "spare"]).await;
    run(&cluster, &["disable-backend", "canary"]).await;
    for _ in 0..2 {
        let visit = visit(cluster.address(), Some(&begun)).await;
        assert_eq!((visit.said.as_str(), visit.cookie), ("spare: none", None));
    }
}

#[tokio::test]
async fn a_strict_pool_keeps_its_clients_even_when_it_has_nobody() {
    let strict = ["--sticky", "cookie", "--session-strict", "true"];
    let (cluster, _backends) = shared(&["--sticky", "cookie"], &strict).await;
    let begun = begun_in(&cluster, "canary").await.begun();
    run(&cluster, &["disable-backend", "canary"]).await;
    for _ in 0..3 {
        assert_eq!(visit(cluster.address(), Some(&begun)).await.status, 503);
    }
    // For good, it is told to begin anew, and is served by whom there is.
    run(&cluster, &["remove-backend", "canary"]).await;
    let ended = visit(cluster.address(), Some(&begun)).await;
    assert_eq!((ended.status, ended.cookie.as_deref()), (503, Some("lb_session=")));
}

#[tokio::test]
async fn backends_see_no_cookie_of_any_pool_that_may_serve_the_request() {
    let (cluster, _backends) = shared(
        &["--sticky", "cookie", "--session-cookie", "one"],
        &["--sticky", "cookie", "--session-cookie", "two"],
    )
    .await;
    let ask = async |path: &str, cookies: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"
        );
        exchange(cluster.address(), "GET", request).await.unwrap().text()
    };
    let (main, canary) =
        (begun_in(&cluster, "main").await.begun(), begun_in(&cluster, "canary").await.begun());
    // Of several pools in which a client has a session, the first that the route names.
    assert_eq!(ask("/", &format!("a=1; {canary}; {main}; b=2")).await, "main: a=1; b=2");
    assert_eq!(ask("/", &format!("{canary}; a=1; one=rubbish")).await, "canary: a=1");

    // A pool without sessions whose place another one takes that has them.
    let (plain, spare) = (naming("plain"), naming("spare"));
    add_pool(&cluster, "spare", &spare, &["--sticky", "cookie", "--session-cookie", "three"]).await;
    add_pool(&cluster, "plain", &plain, &["--fallback-pool", "spare"]).await;
    run(&cluster, &["add-route", "plain", "--path-prefix", "/plain", "--pool", "plain"]).await;
    assert_eq!(ask("/plain", "three=x; a=1; one=y").await, "plain: a=1; one=y");
    run(&cluster, &["disable-backend", "plain"]).await;
    assert_eq!(ask("/plain", "a=1; three=x").await, "spare: a=1");
    // What cookies are called now counts, at once.
    run(&cluster, &["set-pool", "spare", "--session-cookie", "four"]).await;
    assert_eq!(ask("/plain", "four=x; three=x").await, "spare: three=x");
}
