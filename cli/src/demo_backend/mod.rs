//! `demo-backend`: a small HTTP server to balance.
//!
//! Every answer tells which server gave it and what it was asked, so that a few
//! requests show how a balancer distributes and what it adds. It can be slow and it can
//! fail, on purpose.

mod answer;

use std::{
    convert::Infallible, net::SocketAddr, pin::pin, process::ExitCode, sync::Arc, time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use lb_core::listening;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::answer::Site;
use crate::{
    args::DemoBackend,
    command::block_on,
    exit::{Exit, Failure},
    output,
    signal::{StopSignals, parent_gone},
};

/// Further connections wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;

/// How long requests in flight may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// Serves until it is told to stop.
pub(crate) fn run(args: &DemoBackend) -> Result<ExitCode, Failure> {
    block_on(async {
        let listener = bind(&args.host, args.port).await?;
        let address = listener.local_addr().map_err(|error| cannot_listen(args, &error))?;
        let stop = CancellationToken::new();
        let mut signals = StopSignals::catch().map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot catch signals: {error}"))
        })?;
        // A parent learns the port from this line.
        output::print(&format!("listening backend={address}"))?;
        let site = Site::new(address.port(), args.delay, args.error_rate);
        let serving = serve(listener, site, stop.clone());
        let mut serving = pin!(serving);
        tokio::select! {
            () = &mut serving => return Ok(()),
            () = signals.next() => {}
            () = parent_gone(args.exit_with_parent) => {}
        }
        stop.cancel();
        tokio::select! {
            () = serving => {}
            () = signals.next() => {}
            () = sleep(DRAIN) => {}
        }
        Ok(())
    })
}

async fn bind(host: &str, port: u16) -> Result<TcpListener, Failure> {
    TcpListener::bind((host, port)).await.map_err(|error| {
        let at =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let exit = match error.kind() {
            std::io::ErrorKind::AddrInUse => Exit::AddressInUse,
            _ => Exit::BadConfiguration,
        };
        Failure::new(exit, listening::cannot_listen(&at, &error, "--host", "--port"))
    })
}

fn cannot_listen(args: &DemoBackend, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot listen on port {}: {error}", args.port))
}

/// Accepts until `stop`, then waits for the requests in flight.
async fn serve(listener: TcpListener, site: Site, stop: CancellationToken) {
    let site = Arc::new(site);
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let (site, stop) = (Arc::clone(&site), stop.clone());
        connections.spawn(async move {
            converse(stream, peer, site, stop).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(_) => {
            // Out of descriptors, say: trying again at once would only burn time.
            sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// Answers the requests of one connection.
async fn converse(stream: TcpStream, peer: SocketAddr, site: Arc<Site>, stop: CancellationToken) {
    // Without it, small answers wait for the client's acknowledgements; nothing else is lost.
    drop(stream.set_nodelay(true));
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // A client that breaks off is its own business, here and below.
    tokio::select! {
        ended = connection.as_mut() => return drop(ended),
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn start(error_rate: f64) -> (SocketAddr, CancellationToken) {
        let listener = bind("127.0.0.1", 0).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, Site::new(8001, None, error_rate), stop.clone()));
        (address, stop)
    }

    /// Sends one request; returns the head and the body of the answer.
    async fn ask(address: SocketAddr, request: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end..].to_vec())
    }

    fn get(path: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nX-One: 2\r\nConnection: close\r\n\r\n"
        )
    }

    #[tokio::test]
    async fn an_answer_tells_the_server_and_the_request() {
        let (address, _stop) = start(0.0).await;
        let (head, body) = ask(address, &get("/cart?id=7")).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("application/json"), "{head}");
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["server_info"]["id"], "backend-8001");
        assert_eq!(json["server_info"]["port"], 8001);
        assert_eq!(json["request"]["path"], "/cart");
        assert_eq!(json["request"]["query"], "id=7");
        assert_eq!(json["request"]["method"], "GET");
        assert_eq!(json["request"]["headers"]["host"], "a");
        assert_eq!(json["request"]["headers"]["x-one"], "1, 2");
        assert!(json["timestamp"].is_string());
    }

    #[tokio::test]
    async fn bodies_are_read_to_their_end_and_counted() {
        let (address, _stop) = start(0.0).await;
        let body = "x".repeat(100_000);
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let (_, answer) = ask(address, &request).await;
        let json: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(json["request"]["body_bytes"], 100_000);
    }

    #[tokio::test]
    async fn it_fails_on_purpose_but_stays_healthy() {
        let (address, _stop) = start(1.0).await;
        assert!(ask(address, &get("/")).await.0.starts_with("HTTP/1.1 500 "));
        let (head, body) = ask(address, &get("/health")).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["status"], "healthy");
    }

    #[tokio::test]
    async fn bytes_are_sent_with_their_length() {
        let (address, _stop) = start(0.0).await;
        let (head, body) = ask(address, &get("/bytes/200000")).await;
        assert!(head.to_lowercase().contains("content-length: 200000"), "{head}");
        assert_eq!(body.len(), 200_000);
        assert!(ask(address, &get("/bytes/many")).await.0.starts_with("HTTP/1.1 400 "));
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_delay_the_end() {
        let listener = bind("127.0.0.1", 0).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Site::new(1, None, 0.0), stop.clone()));
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        idle.read_u8().await.unwrap();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_has_its_own_exit_code() {
        let taken = bind("127.0.0.1", 0).await.unwrap();
        let failure = bind("127.0.0.1", taken.local_addr().unwrap().port()).await.unwrap_err();
        assert_eq!(failure.exit, Exit::AddressInUse);
        assert!(failure.message.contains("--port"), "{failure}");
    }
}
