//! An answer that sets a session's cookie is for one client: caches that others use are told so,
//! and nothing that the backend said of them is weakened.

use std::time::Duration;

use lb_tests::{
    backend::{Action, Backend},
    client::{Response, exchange},
    cluster::{Cluster, no_checks},
};

use super::{Visit, aged, ring, sticky};
use crate::program;

/// Answers by the path: with this Cache-Control, or that nothing has changed.
fn caching() -> Backend {
    Backend::scripted(|request| {
        let field = match request.path() {
            "/public" => "Cache-Control: public, max-age=60\r\n",
            "/no-store" => "Cache-Control: no-store\r\n",
            "/private" => "cache-control: max-age=5\r\nCache-Control: Private\r\n",
            "/hop" => "Connection: cache-control\r\nCache-Control: no-store\r\n",
            _ => "",
        };
        let answer = match request.path() {
            "/unchanged" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".to_owned(),
            _ => format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 2\r\n\r\nok"),
        };
        vec![Action::Send(answer.into_bytes())]
    })
}

/// What an answer says to caches, in the order of its fields.
fn told(response: &Response) -> Vec<&str> {
    let lines = response.head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.filter(|(name, _)| name.eq_ignore_ascii_case("cache-control")).map(|(_, v)| v).collect()
}

async fn ask(cluster: &Cluster, path: &str, cookie: Option<&str>) -> Response {
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{cookie}Connection: close\r\n\r\n");
    exchange(cluster.address(), "GET", request).await.unwrap()
}

async fn cluster(backend: &Backend) -> Cluster {
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    cluster.api.change_pool(sticky).await;
    cluster.add_backends(&[backend.address()]).await;
    cluster
}

#[tokio::test]
async fn shared_caches_are_kept_from_answers_that_set_a_cookie_and_from_no_others() {
    let backend = caching();
    let cluster = cluster(&backend).await;
    let cookie = Visit::of(&ask(&cluster, "/", None).await).begun();
    for (path, own, with_cookie) in [
        ("/", &[][..], &["private"][..]),
        ("/public", &["public, max-age=60"], &["public, max-age=60", "private"]),
        ("/no-store", &["no-store"], &["no-store"]),
        ("/private", &["max-age=5", "Private"], &["max-age=5", "Private"]),
        ("/hop", &[], &["private"]),
    ] {
        let begins = ask(&cluster, path, None).await;
        assert!(begins.field("Set-Cookie").is_some(), "{begins:?}");
        assert_eq!(told(&begins), with_cookie, "{path}");
        let kept = ask(&cluster, path, Some(&cookie)).await;
        assert_eq!(kept.field("Set-Cookie"), None, "{kept:?}");
        assert_eq!(told(&kept), own, "{path}");
    }
}

#[tokio::test]
async fn no_session_begins_with_an_answer_that_nothing_has_changed() {
    let backend = caching();
    let cluster = cluster(&backend).await;
    let new = ask(&cluster, "/unchanged", None).await;
    assert_eq!((new.status, new.field("Set-Cookie"), told(&new)), (304, None, vec![]));
    let cookie = Visit::of(&ask(&cluster, "/", None).await).begun();
    let ring = ring(&cluster).await;
    let after = async |minutes: u64, path: &str| {
        let cookie = aged(&ring, &cookie, Duration::from_secs(minutes * 60));
        let answer = ask(&cluster, path, Some(&cookie)).await;
        let is_set = answer.field("Set-Cookie").is_some();
        assert_eq!(is_set, told(&answer) == ["private"], "{answer:?}");
        is_set
    };
    // Renewed after a tenth by what has a body, and after half of its time by anything.
    assert!(!after(5, "/").await && after(7, "/").await);
    assert!(!after(7, "/unchanged").await && !after(29, "/unchanged").await);
    assert!(after(31, "/unchanged").await, "or who gets no others would lose it");
}
