//! Upgraded connections: WebSocket with a client and a server that are not ours, and bare
//! tunnels where every byte and every end matters.

use std::{net::SocketAddr, time::Duration};

use futures_util::SinkExt as _;
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::Client,
    cluster::{Cluster, no_checks},
    eventually::eventually,
    port::Port,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::Instant,
};
use tokio_stream::StreamExt as _;
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{
        Message,
        protocol::{
            CloseFrame,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use crate::program;

const UPGRADE: &str =
    "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";

type Socket = WebSocketStream<TcpStream>;

/// A server on which every connection is handled like this.
fn server<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> Port
where
    F: Future<Output = ()> + Send + 'static,
{
    let port = Port::reserve();
    let listener = port.listen();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(handle(stream));
        }
    });
    port
}

/// Sends every message back, and tells the code with which it was closed.
fn echo() -> (Port, mpsc::UnboundedReceiver<CloseFrame>) {
    let (sender, closed) = mpsc::unbounded_channel();
    let port = server(move |stream| {
        let sender = sender.clone();
        async move {
            let mut socket = accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                match message {
                    Message::Text(text) if text.as_str() == "close" => {
                        let reason = "as you wish".into();
                        let frame = CloseFrame { code: CloseCode::Library(4001), reason };
                        socket.close(Some(frame)).await.unwrap();
                    }
                    Message::Text(_) | Message::Binary(_) => socket.send(message).await.unwrap(),
                    Message::Close(Some(frame)) => sender.send(frame).unwrap(),
                    _ => {}
                }
            }
        }
    });
    (port, closed)
}

async fn before(address: SocketAddr) -> (Cluster, String) {
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    let id = cluster.add_backends(&[address]).await.remove(0);
    (cluster, id)
}

async fn websocket(cluster: &Cluster) -> Socket {
    let stream = Client::connect(cluster.address()).await.into_stream();
    let (socket, response) = client_async("ws://test/chat", stream).await.unwrap();
    assert_eq!(response.status(), 101);
    socket
}

/// A bare tunnel, after the 101.
async fn tunnel(cluster: &Cluster) -> Client {
    let mut client = Client::connect(cluster.address()).await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.status, 101);
    client
}

/// Takes a request, and says that the protocol is another one from now on.
async fn switch(stream: &mut TcpStream) {
    read_head(stream).await;
    stream.write_all(SWITCHING).await.unwrap();
}

/// Reads up to the end of a head, byte by byte: what follows is not touched.
async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

async fn echoed(socket: &mut Socket, message: Message) {
    socket.send(message.clone()).await.unwrap();
    let back = socket.next().await.unwrap().unwrap();
    assert!(back == message, "{} bytes came back differently", message.len());
}

#[tokio::test]
async fn messages_of_every_kind_and_size_come_back_as_they_were() {
    let (port, _closed) = echo();
    let (cluster, _) = before(port.address()).await;
    let mut socket = websocket(&cluster).await;
    echoed(&mut socket, Message::text("hello")).await;
    echoed(&mut socket, Message::text("")).await;
    echoed(&mut socket, Message::binary((0..=255).collect::<Vec<u8>>())).await;
    let mut random = fastrand::Rng::with_seed(3);
    for size in [125, 126, 65_535, 65_536, 1 << 20, 16 << 20] {
        let bytes: Vec<u8> = (0..size).map(|_| random.u8(..)).collect();
        echoed(&mut socket, Message::binary(bytes)).await;
    }
    // One message in three frames.
    let parts = [(Data::Text, "con", false), (Data::Continue, "tin", false)];
    for (data, text, last) in parts.into_iter().chain([(Data::Continue, "ued", true)]) {
        let frame = Frame::message(text.as_bytes().to_vec(), OpCode::Data(data), last);
        socket.send(Message::Frame(frame)).await.unwrap();
    }
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("continued"));
    // The server's library answers pings by itself.
    socket.send(Message::Ping("are you there?".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("are you there?".into()));
}

#[tokio::test]
async fn many_messages_keep_their_order_in_both_directions_at_once() {
    let count = 20_000;
    let (port, _closed) = echo();
    let (cluster, _) = before(port.address()).await;
    let (mut sink, mut stream) = futures_util::StreamExt::split(websocket(&cluster).await);
    let sender = tokio::spawn(async move {
        for number in 0..count {
            sink.feed(Message::text(format!("message {number}"))).await.unwrap();
        }
        sink.flush().await.unwrap();
        sink
    });
    for number in 0..count {
        let message = stream.next().await.unwrap().unwrap();
        assert_eq!(message, Message::text(format!("message {number}")));
    }
    drop(sender.await.unwrap());
}

#[tokio::test]
async fn close_codes_are_passed_both_ways() {
    let (port, mut closed) = echo();
    let (cluster, id) = before(port.address()).await;
    let mut socket = websocket(&cluster).await;
    socket.send(Message::text("close")).await.unwrap();
    let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else {
        panic!("no close frame")
    };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Library(4001), "as you wish"));
    assert!(socket.next().await.is_none(), "then the connection ends");

    let mut socket = websocket(&cluster).await;
    let frame = CloseFrame { code: CloseCode::Library(4002), reason: "enough".into() };
    socket.close(Some(frame.clone())).await.unwrap();
    while let Some(message) = socket.next().await {
        assert!(matches!(message, Ok(Message::Close(_))), "{message:?}");
    }
    assert_eq!(closed.recv().await.unwrap().code, CloseCode::Library(4001), "the echo of its own");
    assert_eq!(closed.recv().await.unwrap(), frame);
    in_flight(&cluster, &id, 0).await;
}

#[tokio::test]
async fn upgraded_connections_count_as_in_flight() {
    let (port, _closed) = echo();
    let (cluster, id) = before(port.address()).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(websocket(&cluster).await);
    }
    in_flight(&cluster, &id, 3).await;
    let described = cluster.lbctl(&["describe", "backend", &id]).await.expect(0).stdout;
    let line = described.lines().find(|line| line.trim_start().starts_with("in flight"));
    assert_eq!(line.and_then(|line| line.split_whitespace().last()), Some("3"), "{described}");
    drop(sockets);
    in_flight(&cluster, &id, 0).await;
}

async fn in_flight(cluster: &Cluster, id: &str, wanted: u32) {
    eventually(&format!("{wanted} in flight"), async || {
        let totals = cluster.api.backend(id).await.totals.unwrap_or_default();
        if totals.in_flight == wanted { Ok(()) } else { Err(totals.in_flight) }
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_outlives_the_request_timeout_but_not_its_own() {
    // Longer than a request may take, shorter than a tunnel may be silent.
    const SILENCE: Duration = Duration::from_millis(1500);
    let port = server(|mut stream| async move {
        switch(&mut stream).await;
        tokio::time::sleep(SILENCE).await;
        stream.write_all(b"still here").await.unwrap();
        // Until the proxy ends it.
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    let (cluster, _) = before(port.address()).await;
    let set = ["--request-timeout", "500ms", "--tunnel-idle-timeout", "4s"];
    drop(cluster.lbctl(&[&["set-pool", "default"], &set[..]].concat()).await.expect(0));
    let mut client = tunnel(&cluster).await;
    assert_eq!(client.take(10).await.unwrap(), b"still here");
    let began = Instant::now();
    assert_eq!(client.rest().await, b"");
    let silent = began.elapsed();
    assert!(silent > Duration::from_millis(3500) && silent < Duration::from_secs(8), "{silent:?}");
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let backend = Backend::scripted(move |request| match request.path() {
        "/chat" => vec![Action::Send(refusal.into())],
        _ => vec![Action::Send(ok("fine"))],
    });
    let (cluster, id) = before(backend.address()).await;
    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..3 {
        client.send(UPGRADE).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (403, "no"));
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "fine");
    }
    assert_eq!(backend.connections(), 1, "and the backend's connection goes on as well");
    let seen = backend.recorded().remove(0).request;
    assert_eq!((seen.field("Upgrade"), seen.field("Connection")), (Some("raw"), Some("upgrade")));
    in_flight(&cluster, &id, 0).await;
}

#[tokio::test]
async fn a_backend_that_resets_is_a_reset_at_the_client() {
    let backend = Backend::scripted(|_| vec![Action::Send(SWITCHING.into()), Action::Reset]);
    let (cluster, _) = before(backend.address()).await;
    // The reset may overtake the 101, but never becomes an end.
    let mut client = Client::connect(cluster.address()).await;
    client.send(UPGRADE).await;
    client.reset().await;
    // And so is a WebSocket that is cut off in the middle.
    let port = server(|stream| async move {
        let mut socket = accept_async(stream).await.unwrap();
        socket.send(Message::text("half of")).await.unwrap();
        socket.next().await.unwrap().unwrap();
        socket.get_ref().set_zero_linger().unwrap();
    });
    cluster.api.delete("backend", "backend1").await;
    cluster.add_backends(&[port.address()]).await;
    let mut socket = websocket(&cluster).await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("half of"));
    socket.send(Message::text("now")).await.unwrap();
    let end = socket.next().await.expect("an error is told");
    assert!(end.as_ref().is_err_and(|error| error.to_string().contains("reset")), "{end:?}");
}

#[tokio::test]
async fn a_client_that_resets_is_a_reset_at_the_backend() {
    let (sender, mut ends) = mpsc::unbounded_channel();
    let port = server(move |mut stream| {
        let sender = sender.clone();
        async move {
            switch(&mut stream).await;
            let end = stream.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
            sender.send(end).unwrap();
        }
    });
    let (cluster, id) = before(port.address()).await;
    let stream = tunnel(&cluster).await.into_stream();
    stream.set_zero_linger().unwrap();
    drop(stream);
    assert_eq!(ends.recv().await.unwrap(), Err(std::io::ErrorKind::ConnectionReset));
    in_flight(&cluster, &id, 0).await;
}

/// The tunnel's idle time, five minutes, is far longer than this test waits.
#[tokio::test]
async fn what_one_side_has_left_ends_when_the_other_stays_silent() {
    let (sender, mut ends) = mpsc::unbounded_channel();
    let port = server(move |mut stream| {
        let sender = sender.clone();
        async move {
            switch(&mut stream).await;
            // It hears the end, and does nothing about it.
            assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
            sender.send(stream).unwrap();
        }
    });
    let (cluster, id) = before(port.address()).await;
    for _ in 0..20 {
        drop(tunnel(&cluster).await);
    }
    let mut held = Vec::new();
    while held.len() < 20 {
        held.push(ends.recv().await.unwrap());
    }
    in_flight(&cluster, &id, 20).await;
    in_flight(&cluster, &id, 0).await;
    // And so does what a backend has left.
    let port = server(|mut stream| async move {
        switch(&mut stream).await;
    });
    cluster.api.delete("backend", &id).await;
    let id = cluster.add_backends(&[port.address()]).await.remove(0);
    let mut client = tunnel(&cluster).await;
    assert_eq!(client.end().await.unwrap(), b"");
    in_flight(&cluster, &id, 1).await;
    in_flight(&cluster, &id, 0).await;
}

#[tokio::test]
async fn either_side_may_say_no_more_and_still_listen() {
    let port = server(|mut stream| async move {
        switch(&mut stream).await;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
    });
    let (cluster, _) = before(port.address()).await;
    let mut client = tunnel(&cluster).await;
    client.send(vec![b'x'; 3_000_000]).await;
    client.finish().await;
    assert_eq!(client.end().await.unwrap(), b"3000000 bytes");

    let port = server(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(&[SWITCHING, b"that is all"].concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"thanks");
    });
    cluster.api.delete("backend", "backend1").await;
    cluster.add_backends(&[port.address()]).await;
    let mut client = tunnel(&cluster).await;
    assert_eq!(client.end().await.unwrap(), b"that is all");
    client.send("thanks").await;
    client.finish().await;
}

#[tokio::test]
async fn what_is_sent_ahead_waits_for_the_101() {
    let gate = Gate::default();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let held = gate.clone();
    let port = server(move |mut stream| {
        let (held, sender) = (held.clone(), sender.clone());
        async move {
            read_head(&mut stream).await;
            // Nothing may come; this is how long it has the chance.
            let mut byte = [0];
            let early = stream.peek(&mut byte);
            let early = tokio::time::timeout(Duration::from_millis(200), early).await.is_ok();
            sender.send(format!("early: {early}")).unwrap();
            held.opened().await;
            stream.write_all(SWITCHING).await.unwrap();
            let mut bytes = [0; "ahead of it!".len()];
            stream.read_exact(&mut bytes).await.unwrap();
            sender.send(String::from_utf8_lossy(&bytes).into_owned()).unwrap();
        }
    });
    let (cluster, _) = before(port.address()).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send(UPGRADE.to_owned() + "ahead ").await;
    assert_eq!(seen.recv().await.unwrap(), "early: false");
    client.send("of it!").await;
    gate.open();
    assert_eq!(client.response().await.status, 101);
    assert_eq!(seen.recv().await.unwrap(), "ahead of it!");
}

#[tokio::test]
async fn upgraded_connections_survive_changes_and_the_removal_of_their_neighbour() {
    let (port, _closed) = echo();
    let (cluster, _) = before(port.address()).await;
    let mut socket = websocket(&cluster).await;
    let neighbour = Backend::saying("other");
    let id = cluster.add_backends(&[neighbour.address()]).await.remove(0);
    for number in 1..=100 {
        cluster.api.change_pool(|pool| pool.request_timeout_ms = 1000 + number).await;
        echoed(&mut socket, Message::text(format!("change {number}"))).await;
    }
    cluster.api.delete("backend", &id).await;
    echoed(&mut socket, Message::text("my neighbour is gone")).await;
    cluster.api.delete("backend", "backend1").await;
    echoed(&mut socket, Message::text("even I am, for all others")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_one_way_does_not_hold_the_other_way_back() {
    let port = server(|mut stream| async move {
        switch(&mut stream).await;
        let (mut read, mut write) = stream.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        while write.write_all(b"tick").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let (cluster, _) = before(port.address()).await;
    let (mut read, mut write) = tunnel(&cluster).await.into_stream().into_split();
    let flood = tokio::spawn(async move {
        let block = vec![b'x'; 1 << 20];
        while write.write_all(&block).await.is_ok() {}
    });
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let began = Instant::now();
        let mut tick = [0; 4];
        let read = tokio::time::timeout(Duration::from_secs(10), read.read_exact(&mut tick)).await;
        read.expect("a tick comes through the flood").unwrap();
        longest = longest.max(began.elapsed());
    }
    println!("the longest wait for a tick beside a flood: {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    flood.abort();
}
