//! A server that holds each request for a while and records how many it holds at once.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use crate::port::Port;

/// A backend on a port of its own, until it is dropped.
#[derive(Debug)]
pub struct Meter {
    port: Port,
    gauge: Arc<Mutex<Gauge>>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Gauge {
    now: u64,
    most: u64,
    /// Requests in progress times seconds, until `changed`.
    area: f64,
    changed: Instant,
    answered: u64,
}

impl Gauge {
    fn change(&mut self, by: i64) {
        let at = Instant::now();
        self.area += self.now as f64 * (at - self.changed).as_secs_f64();
        self.changed = at;
        self.now = self.now.saturating_add_signed(by);
        self.most = self.most.max(self.now);
    }
}

/// One request in progress, until it is dropped.
struct Held<'g>(&'g Mutex<Gauge>);

impl<'g> Held<'g> {
    fn begin(gauge: &'g Mutex<Gauge>) -> Self {
        gauge.lock().unwrap_or_else(PoisonError::into_inner).change(1);
        Self(gauge)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).change(-1);
    }
}

impl Meter {
    /// Answers each request after this time, with 200 and this body. A request whose
    /// connection ends is over.
    #[must_use]
    pub fn open(body: &str, service: Duration) -> Self {
        let port = Port::reserve();
        let gauge = Gauge { now: 0, most: 0, area: 0.0, changed: Instant::now(), answered: 0 };
        let gauge = Arc::new(Mutex::new(gauge));
        let (listener, shared) = (port.listen(), Arc::clone(&gauge));
        let answer: Arc<[u8]> = crate::backend::ok(body).into();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (gauge, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                connections.spawn(async move { serve(stream, &gauge, &answer, service).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, gauge, server }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The most requests that it had at once.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner).most
    }

    /// Requests that were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner).answered
    }

    /// Requests in progress on average, over this time from now on.
    pub async fn mean(&self, over: Duration) -> f64 {
        let area = || {
            let mut gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
            gauge.change(0);
            (gauge.area, gauge.changed)
        };
        let (before, from) = area();
        sleep(over).await;
        let (after, until) = area();
        (after - before) / (until - from).as_secs_f64()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, gauge: &Mutex<Gauge>, answer: &[u8], service: Duration) {
    stream.set_nodelay(true).ok();
    let mut heard = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut heard).await {
        if !heard.ends_with(b"\r\n\r\n") {
            continue;
        }
        heard.clear();
        let held = Held::begin(gauge);
        tokio::select! {
            () = sleep(service) => {}
            // Nothing is sent before an answer: the connection has ended.
            _ = stream.readable() => return,
        }
        // Before the answer: whoever has it may send the next one at once.
        drop(held);
        gauge.lock().unwrap_or_else(PoisonError::into_inner).answered += 1;
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}
