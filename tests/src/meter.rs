//! A server that holds each request for a while and records how many it holds at once; if it
//! has only so many places, further requests wait for one in the order of arrival.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use crate::port::Port;

/// A backend on a port of its own, until it is dropped.
#[derive(Debug)]
pub struct Meter {
    port: Port,
    shop: Arc<Shop>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shop {
    gauge: Mutex<Gauge>,
    places: Semaphore,
    service_us: AtomicU64,
    answer: Vec<u8>,
}

/// What became of requests in a span of time.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Requests that were answered.
    pub answered: u64,
    /// The mean time that they waited for a place.
    pub queued: Duration,
    /// The share of the places that was in use. A machine that is busy with something else makes
    /// fewer answers of it, and leaves this as it is.
    pub busy: f64,
}

#[derive(Debug)]
struct Gauge {
    now: u64,
    most: u64,
    /// Requests in progress times seconds, until `changed`.
    area: f64,
    /// The same of those that have a place.
    places: usize,
    busy: f64,
    changed: Instant,
    answered: u64,
    queued: Duration,
}

impl Gauge {
    fn change(&mut self, by: i64) {
        let at = Instant::now();
        let lasted = (at - self.changed).as_secs_f64();
        self.area += self.now as f64 * lasted;
        self.busy += self.now.min(self.places as u64) as f64 * lasted;
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
        Self::with_places(body, service, Semaphore::MAX_PERMITS)
    }

    /// The same, but works on no more than so many at once.
    #[must_use]
    pub fn with_places(body: &str, service: Duration, places: usize) -> Self {
        let port = Port::reserve();
        let gauge = Gauge {
            now: 0,
            most: 0,
            area: 0.0,
            places,
            busy: 0.0,
            changed: Instant::now(),
            answered: 0,
            queued: Duration::ZERO,
        };
        let shop = Arc::new(Shop {
            gauge: Mutex::new(gauge),
            places: Semaphore::new(places),
            service_us: AtomicU64::new(micros(service)),
            answer: crate::backend::ok(body),
        });
        let (listener, shared) = (port.listen(), Arc::clone(&shop));
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shop = Arc::clone(&shared);
                connections.spawn(async move { serve(stream, &shop).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, shop, server }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Holds requests for so long from now on.
    pub fn set_service(&self, service: Duration) {
        self.shop.service_us.store(micros(service), Relaxed);
    }

    /// What becomes of requests during this time from now on.
    pub async fn span(&self, over: Duration) -> Span {
        let figures = || {
            let mut gauge = self.shop.gauge();
            gauge.change(0);
            (gauge.answered, gauge.queued, gauge.busy / gauge.places as f64, gauge.changed)
        };
        let before = figures();
        sleep(over).await;
        let after = figures();
        let answered = after.0 - before.0;
        let queued = (after.1 - before.1) / u32::try_from(answered.max(1)).unwrap_or(u32::MAX);
        let busy = (after.2 - before.2) / (after.3 - before.3).as_secs_f64();
        Span { answered, queued, busy }
    }

    /// The most requests that it had at once.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.shop.gauge().most
    }

    /// The same since it was asked last; from now on it is what it has now.
    #[must_use]
    pub fn take_most(&self) -> u64 {
        let mut gauge = self.shop.gauge();
        let now = gauge.now;
        std::mem::replace(&mut gauge.most, now)
    }

    /// Requests that were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shop.gauge().answered
    }

    /// Requests in progress on average, over this time from now on.
    pub async fn mean(&self, over: Duration) -> f64 {
        let area = || {
            let mut gauge = self.shop.gauge();
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

impl Shop {
    fn gauge(&self) -> MutexGuard<'_, Gauge> {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

async fn serve(mut stream: TcpStream, shop: &Shop) {
    stream.set_nodelay(true).ok();
    let mut heard = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut heard).await {
        if !heard.ends_with(b"\r\n\r\n") {
            continue;
        }
        heard.clear();
        let held = Held::begin(&shop.gauge);
        let came = Instant::now();
        let Ok(place) = shop.places.acquire().await else { return };
        let queued = came.elapsed();
        let service = Duration::from_micros(shop.service_us.load(Relaxed));
        tokio::select! {
            () = sleep(service) => {}
            // Nothing is sent before an answer: the connection has ended.
            _ = stream.readable() => return,
        }
        // Before the answer: whoever has it may send the next one at once.
        drop((held, place));
        {
            let mut gauge = shop.gauge();
            gauge.answered += 1;
            gauge.queued += queued;
        }
        if stream.write_all(&shop.answer).await.is_err() {
            return;
        }
    }
}
