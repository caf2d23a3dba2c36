//! Sessions whose backends have had what a limit lets them have.

use lb_tests::{
    backend::Backend,
    client::exchange,
    cluster::{Cluster, no_checks},
};

use super::{sticky, visit};
use crate::program;

/// A shortage passes, and a session lasts: a request is served elsewhere, and the client's next
/// one goes where the session is; or, in a strict pool, it is told to come again.
#[tokio::test]
async fn a_limit_of_a_backend_does_not_move_its_sessions() {
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    cluster.api.change_pool(sticky).await;
    let (own, other) = (Backend::saying("own"), Backend::saying("other"));
    cluster.add_backends(&[own.address()]).await;
    let cookie = visit(cluster.address(), None).await.begun();
    cluster.add_backends(&[other.address()]).await;
    let run = async |args: &[&str]| drop(cluster.lbctl(args).await.expect(0));
    let limit = ["add-limit", "gentle", "--rate", "1/h", "--burst", "2", "--scope", "backend"];
    run(&limit).await;
    let again = async || visit(cluster.address(), Some(&cookie)).await;
    for _ in 0..2 {
        let visit = again().await;
        assert_eq!((visit.said.as_str(), &visit.cookie), ("own", &None));
    }
    let guest = again().await;
    assert_eq!((guest.status, guest.said.as_str()), (200, "other"));
    assert_eq!(guest.cookie, None, "the session is where it was");
    run(&["set-limit", "gentle", "--shadow"]).await;
    assert_eq!(again().await.said, "own");

    run(&["set-limit", "gentle", "--shadow=false"]).await;
    run(&["set-pool", "default", "--session-strict", "true"]).await;
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n");
    let refused = exchange(cluster.address(), "GET", request).await.unwrap();
    refused.expect(429, "rate_limited");
    assert!(refused.text().contains("this client's session"), "{}", refused.text());
    assert!(refused.text().contains("limit gentle"), "{}", refused.text());
    assert_eq!(refused.field("Set-Cookie"), None);
    assert!(refused.field("Retry-After").is_some());
    assert_eq!(other.requests(), 1, "nobody else was asked");
}
