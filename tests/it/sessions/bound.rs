//! Where a client goes whose backend cannot serve it, and what browsers and backends are told.

use lb_proto::v1::Health;
use lb_tests::{
    backend::{Action, Backend, ok},
    client::exchange,
    cluster::{Cluster, no_checks},
    eventually::eventually,
};

use super::{NAME, Visit, counted, fleet, sticky, visit};
use crate::program;

#[tokio::test]
async fn a_client_moves_when_its_backend_is_down_and_then_stays_where_it_is() {
    let (cluster, backends) = fleet(2, 2).await;
    let first = visit(cluster.address(), None).await;
    let (cookie, own) = (first.begun(), first.said);
    let number: usize = own.trim_start_matches("backend").parse().unwrap();
    backends[number - 1].set_healthy(false);
    cluster.api.verdict(&own, Health::Down).await;
    cluster.api.change_pool(|_| {}).await;
    let moved = eventually("the proxy knows that it is down", async || {
        let visit = visit(cluster.proxy(1).address(), Some(&cookie)).await;
        if visit.said == own { Err(format!("{visit:?}")) } else { Ok(visit) }
    })
    .await;
    let new = moved.begun();
    backends[number - 1].set_healthy(true);
    cluster.api.verdict(&own, Health::Up).await;
    cluster.settled().await;
    // It does not go back: what it had there may be lost.
    for address in cluster.addresses() {
        assert_eq!(visit(address, Some(&new)).await.said, moved.said);
    }
    assert!(counted(&cluster, 2, "down").await >= 1.0);
}

#[tokio::test]
async fn a_try_that_fails_goes_elsewhere_and_takes_the_session_along() {
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    cluster.api.change_pool(sticky).await;
    let mut own = Backend::saying("own");
    let ids = cluster.add_backends(&[own.address()]).await;
    let cookie = visit(cluster.address(), None).await.begun();
    let other = Backend::saying("other");
    cluster.add_backends(&[other.address()]).await;
    own.stop().await;
    let moved = visit(cluster.address(), Some(&cookie)).await;
    assert_eq!((moved.status, moved.said.as_str()), (200, "other"));
    let new = moved.begun();
    own.resume();
    assert_eq!(visit(cluster.address(), Some(&new)).await.said, "other");

    // A strict pool does not move it: the client is told.
    let strict = ["set-pool", "default", "--session-strict", "true"];
    drop(cluster.lbctl(&strict).await.expect(0));
    assert_eq!(visit(cluster.address(), Some(&cookie)).await.said, "own");
    own.stop().await;
    assert_eq!(visit(cluster.address(), Some(&cookie)).await.status, 502);
    drop(cluster.lbctl(&["disable-backend", &ids[0]]).await.expect(0));
    let request = |cookie: &str| {
        format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n")
    };
    let refused = exchange(cluster.address(), "GET", request(&cookie)).await.unwrap();
    refused.expect(503, "session_unavailable");
    assert!(refused.text().contains("(disabled)"), "{}", refused.text());
    assert_eq!(refused.field("Set-Cookie"), None, "it may come back");
    drop(cluster.lbctl(&["remove-backend", &ids[0]]).await.expect(0));
    let ended = exchange(cluster.address(), "GET", request(&cookie)).await.unwrap();
    ended.expect(503, "session_unavailable");
    let cleared = ended.field("Set-Cookie").unwrap();
    assert!(cleared.starts_with("lb_session=;") && cleared.contains("Max-Age=0"), "{cleared}");
    let anew = visit(cluster.address(), None).await;
    assert_eq!(anew.said, "other");
}

#[tokio::test]
async fn a_client_stays_in_its_pool_when_a_route_shares_requests_out() {
    let (cluster, _backends) = fleet(2, 1).await;
    drop(cluster.lbctl(&["add-pool", "canary", "--sticky", "cookie"]).await.expect(0));
    let canary = Backend::saying("canary");
    let address = canary.address().to_string();
    drop(cluster.lbctl(&["add-backend", &address, "--pool", "canary"]).await.expect(0));
    let both = ["set-route", "default", "--pool", "default=1", "--pool", "canary=1"];
    assert!(!cluster.lbctl(&both).await.expect(0).stderr.contains("warning"));
    cluster.settled().await;
    let (first, second) =
        (visit(cluster.address(), None).await, visit(cluster.address(), None).await);
    assert_ne!(first.said, second.said, "new clients follow the weights");
    for address in cluster.addresses() {
        for _ in 0..4 {
            for begun in [&first, &second] {
                let again = visit(address, Some(&begun.begun())).await;
                assert_eq!((&again.said, &again.cookie), (&begun.said, &None));
            }
        }
    }
}

#[tokio::test]
async fn pools_that_would_take_each_others_cookies_are_named_when_they_are_written() {
    let cluster = Cluster::start(program(), 1).await;
    let quiet = cluster.lbctl(&["set-pool", "default", "--sticky", "cookie"]).await.expect(0);
    assert!(!quiet.stderr.contains("warning"), "{quiet:?}");
    drop(cluster.lbctl(&["add-pool", "shop", "--sticky", "cookie"]).await.expect(0));
    let add = ["add-route", "shop", "--path-prefix", "/shop", "--pool", "shop"];
    let told = cluster.lbctl(&add).await.expect(0).stderr;
    println!("{told}");
    assert!(
        told.contains("warning: pools shop and default are both reached on any host"),
        "{told}"
    );
    let own = ["set-pool", "shop", "--session-cookie", "shop_session"];
    assert!(!cluster.lbctl(&own).await.expect(0).stderr.contains("warning"));
}

#[tokio::test]
async fn browsers_get_the_attributes_and_backends_get_their_own_cookies_only() {
    let backend = Backend::scripted(|request| {
        let cookie = request.field("Cookie").unwrap_or("none").to_owned();
        vec![Action::Send(ok(&cookie))]
    });
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[backend.address()]).await;
    cluster.api.change_listener(|l| l.trusted_proxies = vec!["127.0.0.0/8".to_owned()]).await;
    let set = ["set-pool", "default", "--sticky", "cookie", "--session-ttl", "5m"];
    let told = cluster.lbctl(&set).await.expect(0).stdout;
    assert!(told.contains("sticky none -> cookie") && told.contains("session-ttl 5m"), "{told}");
    let ask = async |fields: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}Connection: close\r\n\r\n");
        exchange(cluster.address(), "GET", request).await.unwrap()
    };
    let plain = ask("").await;
    let attributes = |response: &lb_tests::client::Response| {
        let set = response.field("Set-Cookie").unwrap().to_owned();
        set.split_once("; ").unwrap().1.to_owned()
    };
    assert_eq!(attributes(&plain), "Path=/; Max-Age=300; HttpOnly; SameSite=Lax");
    assert_eq!(plain.text(), "none");
    let secure = ask("X-Forwarded-Proto: https\r\n").await;
    assert_eq!(attributes(&secure), "Path=/; Max-Age=300; HttpOnly; SameSite=Lax; Secure");
    // Of several hops the first is the client's own.
    for (hops, is_secure) in [("https, http", true), ("http, https", false)] {
        let answer = ask(&format!("X-Forwarded-Proto: {hops}\r\n")).await;
        assert_eq!(attributes(&answer).ends_with("; Secure"), is_secure, "{hops}");
    }
    let own = Visit::of(&plain).begun();
    for (cookies, left) in [
        (format!("a=1; {own}; b=2"), "a=1; b=2"),
        (format!("{own}; a=1"), "a=1"),
        (own.clone(), "none"),
        (format!("{NAME}=old; x=1; {own}"), "x=1"),
    ] {
        let answer = ask(&format!("Cookie: {cookies}\r\n")).await;
        assert_eq!(answer.text(), left, "{cookies}");
    }
    let two = ask(&format!("Cookie: a=1\r\nX-Between: 1\r\ncookie: {own}\r\n")).await;
    assert_eq!((two.text().as_str(), two.field("Set-Cookie")), ("a=1", None));
    // What is no business of the proxy's comes through as it was sent.
    assert_eq!(ask("Cookie:  a=1;b=2 ;; c\r\n").await.text(), "a=1;b=2 ;; c");
}
