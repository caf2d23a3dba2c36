//! Long bodies, which pass without being copied: their lengths around the threshold, and
//! everything that can happen in the middle of one.

use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::Client,
    eventually::eventually,
};
use tokio::io::AsyncWriteExt as _;

use crate::one_proxy;

/// Bytes of which none is like its neighbours, so that a loss or a swap shows.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap()).collect()
}

fn response(length: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    [head.into_bytes(), body(length)].concat()
}

fn request(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// A length that no buffers on the way hold.
const LONG: usize = 32 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_every_length_around_the_threshold_arrive_on_one_connection() {
    let backend = Backend::scripted(|request| {
        let length: usize = request.path().trim_start_matches('/').parse().unwrap();
        vec![Action::ReadBody, Action::Send(response(length))]
    });
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    let mut lengths = vec![0, 1, 16_383, 16_384, 16_385, 131_071, 131_073, 1 << 20, 3_000_001];
    lengths.extend(65_536 - 3..=65_536 + 3);
    // What comes with the head counts towards the body, too.
    lengths.extend((65_536 + 16_000..65_536 + 16_800).step_by(97));
    lengths.extend((262_144 - 2..262_144 + 3).chain(262_144 + 65_534..262_144 + 65_539));
    let mut asked = 0;
    for up in lengths.iter().copied() {
        let down = lengths[(asked * 7) % lengths.len()];
        // The head alone, together with a part, and all in one go.
        let all = [request(&format!("/{down}"), up), body(up)].concat();
        let cut = [all.len() - up, all.len() - up / 2, all.len()][asked % 3];
        client.send(&all[..cut]).await;
        if cut < all.len() {
            backend.reached(asked + 1).await;
            client.send(&all[cut..]).await;
        }
        let response = client.response().await;
        assert_eq!(response.status, 200, "{up} up, {down} down");
        assert!(response.body == body(down), "{up} up, {down} down: {}", response.body.len());
        asked += 1;
        assert!(backend.recorded()[asked - 1].body == body(up), "{up} up, {down} down");
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_in_the_middle_of_an_upload_arrives() {
    let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge";
    for end in [Action::Hang, Action::Close] {
        let end = move |_: &_| vec![Action::Send(refusal.into()), end.clone()];
        let backend = Backend::scripted(end);
        let cluster = one_proxy(&[&backend]).await;
        let (address, head) = (cluster.address(), request("/", LONG));
        let stream = Client::connect(address).await.into_stream();
        let (read, mut write) = stream.into_split();
        // Goes on sending until it is told.
        let sender = tokio::spawn(async move {
            write.write_all(&head).await.ok();
            write.write_all(&body(LONG)).await.ok();
            write
        });
        let mut answer = String::new();
        let mut reader = tokio::io::BufReader::new(read);
        while !answer.ends_with("large") {
            let read = tokio::io::AsyncBufReadExt::fill_buf(&mut reader);
            let bytes = tokio::time::timeout(lb_tests::PATIENCE, read).await.unwrap().unwrap();
            assert!(!bytes.is_empty(), "cut off: {answer:?}");
            answer += str::from_utf8(bytes).unwrap();
            let length = bytes.len();
            tokio::io::AsyncBufReadExt::consume(&mut reader, length);
        }
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("Connection: close"), "{answer}");
        sender.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_body_that_is_cut_off_is_a_reset_at_the_client() {
    let backend = Backend::scripted(|request| {
        let mut whole = response(LONG);
        whole.truncate(LONG / 2);
        let end = if request.path() == "/close" { Action::Close } else { Action::Reset };
        match request.path() {
            "/close" | "/reset" => vec![Action::Send(whole), end],
            _ => vec![Action::Send(ok("next"))],
        }
    });
    let cluster = one_proxy(&[&backend]).await;
    for path in ["/close", "/reset"] {
        let mut client = Client::connect(cluster.address()).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        client.head().await.unwrap();
        let seen = client.reset().await;
        assert!(body(LONG).starts_with(&seen), "{path}: {} bytes", seen.len());
        // Whoever comes next is served on a connection of its own.
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "next");
    }
    let totals = eventually("both are told", async || {
        let totals = cluster.api.backend("backend1").await.totals.unwrap_or_default();
        if totals.requests == 4 { Ok(totals) } else { Err(totals.requests) }
    });
    assert_eq!(totals.await.failures.unwrap_or_default().reset, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_in_the_middle_spoils_nothing_for_others() {
    let backend = Backend::scripted(|request| match request.path() {
        "/down" => vec![Action::Send(response(LONG))],
        "/up" => vec![Action::ReadBody, Action::Send(ok("up"))],
        _ => vec![Action::Send(ok("next"))],
    });
    let cluster = one_proxy(&[&backend]).await;
    let mut next = Client::connect(cluster.address()).await;
    for number in 0..8_usize {
        let mut client = Client::connect(cluster.address()).await;
        if number.is_multiple_of(2) {
            client.send("GET /down HTTP/1.1\r\nHost: test\r\n\r\n").await;
            client.take(1 << 20).await.unwrap();
        } else {
            client.send(request("/up", LONG)).await;
            client.send(&body(LONG)[..LONG / 2]).await;
        }
        let stream = client.into_stream();
        if number % 4 < 2 {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        next.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let response = next.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "next"));
    }
    // The connections on which something was left over were not used again.
    for recorded in backend.recorded() {
        let after = backend.recorded().into_iter().filter(|other| {
            other.request.connection == recorded.request.connection
                && other.request.number > recorded.request.number
        });
        let broken = matches!(recorded.request.path(), "/down" | "/up");
        assert!(!broken || after.count() == 0, "{}", recorded.request.head);
    }
    eventually("nothing is in flight, and nobody is blamed", async || {
        let totals = cluster.api.backend("backend1").await.totals.unwrap_or_default();
        let calm =
            totals.in_flight == 0 && totals.failures.unwrap_or_default() == Default::default();
        if calm && totals.requests == 16 { Ok(()) } else { Err(format!("{totals:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_of_one_exchange_may_be_long() {
    // Answers while it is still being sent to.
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |_| {
        vec![
            Action::Send(response(LONG)[..LONG / 2].to_vec()),
            Action::Await(held.clone()),
            Action::ReadBody,
            Action::Send(response(LONG)[LONG / 2..].to_vec()),
        ]
    });
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send(request("/", LONG)).await;
    let head = client.head().await.unwrap();
    let first = LONG / 2 - head.len();
    let half = client.take(first.min(LONG / 4)).await.unwrap();
    gate.open();
    client.send(body(LONG)).await;
    let rest = client.take(LONG - half.len()).await.unwrap();
    assert!([half, rest].concat() == body(LONG));
    assert!(backend.recorded()[0].body == body(LONG));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_long_bodies_than_pipes_arrive_all_the_same() {
    let backend = Backend::scripted(|_| vec![Action::Send(response(1 << 20))]);
    // 256 descriptors are two pipes for a worker.
    let program = crate::program().with_descriptors(256);
    let cluster = lb_tests::cluster::Cluster::start_with(program, 1, &["--workers=1"]).await;
    cluster.api.change_pool(lb_tests::cluster::no_checks).await;
    cluster.add_backends(&[backend.address()]).await;
    let address = cluster.address();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        all.spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..5 {
                client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
                assert!(client.response().await.body == body(1 << 20));
            }
        });
    }
    all.join_all().await;
}
