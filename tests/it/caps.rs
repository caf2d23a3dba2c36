//! Bounds of connections and descriptors: clients wait, none is refused but the one that
//! takes more than its share, and what the bounds cost nobody pays twice.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    load::Load,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{one_proxy_with, program};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const HELD: &str = "GET /held HTTP/1.1\r\nHost: test\r\n\r\n";

/// Waits until the proxy has this many clients' connections, as it says itself.
async fn connections(cluster: &Cluster, what: &str, fits: impl Fn(&[u32]) -> bool) -> Vec<u32> {
    eventually(what, async || {
        let process = cluster.api.proxy("proxy-1").await.process.unwrap_or_default();
        let workers = process.worker_connections;
        if fits(&workers) { Ok(workers) } else { Err(format!("{workers:?}")) }
    })
    .await
}

#[tokio::test]
async fn more_clients_than_connections_are_all_served_in_turn() {
    let backend = Backend::saying("a");
    let cluster = one_proxy_with(&["--max-connections=10", "--workers=2"], &[&backend]).await;
    let began = Instant::now();
    let load = Load::start(&[cluster.address()], 30);
    load.answered(1500).await;
    let tally = load.stop().await;
    tally.assert_flawless();
    println!(
        "{} answers for 30 clients on 10 connections in {:?}",
        tally.answered,
        began.elapsed()
    );
}

#[tokio::test]
async fn at_the_bound_clients_are_told_to_close_and_the_next_one_comes_in() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |request| match request.path() {
        "/held" => vec![Action::Await(held.clone()), Action::Send(ok("held"))],
        _ => vec![Action::Send(ok("a"))],
    });
    let cluster = one_proxy_with(&["--max-connections=3", "--workers=1"], &[&backend]).await;
    let mut clients = Vec::new();
    for number in 1..=3 {
        let mut client = Client::connect(cluster.address()).await;
        client.send(GET).await;
        let response = client.response().await;
        let told = response.field("Connection");
        assert_eq!(told, (number == 3).then_some("close"), "{number}: {response:?}");
        clients.push(client);
    }
    // The first two are at work again: idle, they would make room.
    for client in &mut clients[..2] {
        client.send(HELD).await;
    }
    // The third has left; a fourth takes its place, a fifth waits.
    let mut fourth = Client::connect(cluster.address()).await;
    fourth.send(HELD).await;
    connections(&cluster, "three are open", |workers| workers == [3]).await;
    let mut fifth = Client::connect(cluster.address()).await;
    fifth.send(GET).await;
    assert!(timeout(Duration::from_millis(300), fifth.head()).await.is_err(), "it waits");
    drop(clients.remove(0));
    assert_eq!(fifth.response().await.text(), "a");
    let process = cluster.api.proxy("proxy-1").await.process.unwrap();
    assert!(process.own_answers.is_empty(), "nobody was refused: {process:?}");
}

#[tokio::test]
async fn a_bound_of_the_listener_holds_and_can_be_raised() {
    let backend = Backend::saying("a");
    let cluster = one_proxy_with(&["--workers=1"], &[&backend]).await;
    let set = ["set-listener", "default", "--max-connections"];
    drop(cluster.lbctl(&[&set[..], &["2"]].concat()).await.expect(0));
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET / HTTP/1.1\r\n").await;
        idle.push(client);
    }
    connections(&cluster, "two are open", |workers| workers == [2]).await;
    let mut third = Client::connect(cluster.address()).await;
    third.send(GET).await;
    assert!(timeout(Duration::from_millis(300), third.head()).await.is_err(), "it waits");
    let began = Instant::now();
    drop(cluster.lbctl(&[&set[..], &["3"]].concat()).await.expect(0));
    assert_eq!(third.response().await.text(), "a");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Lowered, it holds for those who come from now on.
    drop(cluster.lbctl(&[&set[..], &["1"]].concat()).await.expect(0));
    let mut fourth = Client::connect(cluster.address()).await;
    fourth.send(GET).await;
    assert!(timeout(Duration::from_millis(300), fourth.head()).await.is_err(), "it waits");
    drop((idle, third));
    assert_eq!(fourth.response().await.text(), "a");
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let backend = Backend::saying("a");
    let cluster = one_proxy_with(&["--workers=2"], &[&backend]).await;
    let set = ["set-listener", "default", "--max-connections-per-client", "3"];
    drop(cluster.lbctl(&set).await.expect(0));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(cluster.address()).await;
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "a");
        clients.push(client);
    }
    for _ in 0..3 {
        let response = get(cluster.address(), "/").await;
        response.expect(429, "too_many_connections");
        assert_eq!(response.field("Connection"), Some("close"));
        assert!(response.field("Retry-After").is_some(), "{response:?}");
    }
    // Those that it has are as good as before, and one that it gives up can be had again.
    for client in &mut clients {
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "a");
    }
    drop(clients.pop());
    eventually("another one is let in", async || {
        let response = get(cluster.address(), "/").await;
        if response.status == 200 { Ok(()) } else { Err(response.text()) }
    })
    .await;
    // Another client, at another address, is not concerned.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut clients_of_another = Client::over(socket.connect(cluster.address()).await.unwrap());
    clients_of_another.send(GET).await;
    assert_eq!(clients_of_another.response().await.text(), "a");
    eventually("the refusals are counted", async || {
        let process = cluster.api.proxy("proxy-1").await.process.unwrap_or_default();
        let count = process.own_answers.get("too_many_connections").copied().unwrap_or(0);
        if count >= 3 { Ok(()) } else { Err(count) }
    })
    .await;
}

#[tokio::test]
async fn workers_share_the_connections_evenly() {
    let backend = Backend::saying("a");
    for workers in [2, 4] {
        let flag = format!("--workers={workers}");
        let cluster = one_proxy_with(&[&flag], &[&backend]).await;
        let mut clients = Vec::new();
        let mut seen = BTreeSet::new();
        for count in 1..=16 {
            let mut client = Client::connect(cluster.address()).await;
            client.send(GET).await;
            assert_eq!(client.response().await.text(), "a");
            clients.push(client);
            let spread = connections(&cluster, &format!("{count} are open"), |workers| {
                workers.iter().sum::<u32>() == count
            })
            .await;
            let (most, least) = (spread.iter().max().unwrap(), spread.iter().min().unwrap());
            assert!(most - least <= 1, "{count} on {workers} workers: {spread:?}");
            seen.insert(most - least);
        }
        println!("{workers} workers: differences {seen:?} with 1 to 16 clients");
    }
}

/// What the kernel lets the proxy open in the tests of exhaustion.
const DESCRIPTORS: u64 = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_a_proxy_lives_waits_and_recovers() {
    for cap in ["--max-connections=100000", "--workers=2"] {
        let backend = Backend::scripted(|request| match request.path() {
            "/held" => vec![Action::Hang],
            _ => vec![Action::Send(ok("a"))],
        });
        let program = program().with_descriptors(DESCRIPTORS);
        let cluster = Cluster::start_with(program, 1, &[cap]).await;
        cluster.api.change_pool(no_checks).await;
        let id = cluster.add_backends(&[backend.address()]).await.remove(0);
        let address = cluster.address();
        let mut clients = JoinSet::new();
        for number in 0..600 {
            clients.spawn(async move {
                let mut client = Client::connect(address).await;
                match number % 4 {
                    0 => client.send(GET).await,
                    1 => client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n").await,
                    2 => client.send("GET / HTTP/1.1\r\nHost: te").await,
                    _ => {}
                }
                let stream = client.into_stream();
                // One that waits for an answer and merely says no more would get it.
                stream.set_zero_linger().unwrap();
                stream
            });
        }
        let clients = clients.join_all().await;
        let process = cluster.proxy(0).process();
        eventually("it has taken what it can", async || {
            let open = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count();
            if open as u64 > DESCRIPTORS * 3 / 4 { Ok(()) } else { Err(open) }
        })
        .await;
        // What they cost who just sit there: the least of some spans, since a busy machine
        // makes each of them dearer, and what spins is never cheap.
        let mut least = f64::MAX;
        for _ in 0..5 {
            sleep(Duration::from_secs(1)).await;
            let (before, began) = (process.cpu(), Instant::now());
            sleep(Duration::from_secs(1)).await;
            let share = (process.cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64();
            least = least.min(share);
            if least < 0.05 {
                break;
            }
        }
        println!("{cap}: {:.1} % of a core while 600 clients sit there", least * 100.0);
        assert!(least < 0.05, "{least}");
        drop(clients);
        let began = Instant::now();
        assert_eq!(get(address, "/").await.text(), "a");
        println!("{cap}: an answer {:?} after they left", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let totals = cluster.api.backend(&id).await.totals.unwrap_or_default();
        assert_eq!(totals.failures.unwrap_or_default().connect, 0);
    }
}

/// Answers whoever comes to any address of this machine, and lets connections stay idle for long.
async fn hospitable() -> SocketAddr {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut buffer, answer) = ([0; 1024], ok("a"));
                let answer = String::from_utf8(answer).unwrap();
                let answer = answer.replacen("\r\n", "\r\nKeep-Alive: timeout=60\r\n", 1);
                // A request comes in one piece, and has no body.
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0)
                    && stream.write_all(answer.as_bytes()).await.is_ok()
                {}
            });
        }
    });
    address
}

/// One request; it is answered.
async fn ask(client: &mut Client) {
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{}", response.text());
}

/// One worker keeps connections to as many backends as there are descriptors for. It gives some of
/// them up when it needs others, and when another worker does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_backends_than_descriptors_are_all_asked_by_all_workers() {
    const BACKENDS: u16 = 300;
    let port = hospitable().await.port();
    let program = program().with_descriptors(DESCRIPTORS);
    let cluster = Cluster::start_with(program, 1, &["--workers=2"]).await;
    cluster.api.change_pool(no_checks).await;
    let addresses: Vec<SocketAddr> = (0..BACKENDS)
        .map(|n| ([127, 0, 1 + u8::from(n >= 200), (n % 200) as u8 + 1], port).into())
        .collect();
    cluster.add_backends(&addresses).await;
    // Whoever accepts gives each to the worker that has fewer.
    let mut clients = Vec::new();
    for count in 1..=2 {
        clients.push(Client::connect(cluster.address()).await);
        connections(&cluster, "a client is told", |w| w.iter().sum::<u32>() == count).await;
    }
    let spread = connections(&cluster, "workers are told", |w| w.len() == 2).await;
    assert_eq!(spread, [1, 1]);
    let process = cluster.proxy(0).process().id();
    let open = || std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64;
    let mut turns = 0;
    // As many as are ever open between requests: the next one makes room.
    while turns < BACKENDS || open() < DESCRIPTORS - 1 {
        ask(&mut clients[0]).await;
        turns += 1;
        assert!(turns < 10 * BACKENDS, "{} of {DESCRIPTORS} are open", open());
    }
    // The second comes to a worker that has nothing, now that there is nothing left.
    for _ in 0..BACKENDS {
        ask(&mut clients[1]).await;
    }
    let open = open();
    assert!(open > DESCRIPTORS / 2, "all that was idle has been closed: {open} are open");
}
