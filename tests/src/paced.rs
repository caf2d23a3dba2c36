//! Requests at a rate, and a backend that notes when each one came.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep},
};

use crate::{
    backend::{Action, Backend, ok},
    client::Client,
};

/// Requests per second that one client sends at most.
const OF_ONE_CLIENT: f64 = 25.0;

/// Why a lock is not poisoned.
const UNBROKEN: &str = "nobody panics while it is held";

/// Clients that send GETs at a rate, whatever they are answered.
#[derive(Debug)]
pub struct Paced {
    clients: JoinSet<BTreeMap<u16, u64>>,
    stop: watch::Sender<bool>,
}

impl Paced {
    /// To each address so many per second. What is late is made up for.
    #[must_use]
    pub fn start(rates: &[(SocketAddr, f64)]) -> Self {
        Self::begin(rates, "", MissedTickBehavior::Burst)
    }

    /// To each address no more than so many per second: what is late comes late.
    #[must_use]
    pub fn at_most(rates: &[(SocketAddr, f64)]) -> Self {
        Self::begin(rates, "", MissedTickBehavior::Delay)
    }

    /// As [`Self::start`], with these fields (whole lines) in each request.
    #[must_use]
    pub fn with_fields(rates: &[(SocketAddr, f64)], fields: &str) -> Self {
        Self::begin(rates, fields, MissedTickBehavior::Burst)
    }

    fn begin(rates: &[(SocketAddr, f64)], fields: &str, late: MissedTickBehavior) -> Self {
        let (stop, mut clients) = (watch::Sender::new(false), JoinSet::new());
        let request: Arc<str> = format!("GET / HTTP/1.1\r\nHost: paced\r\n{fields}\r\n").into();
        for &(address, rate) in rates {
            let mut count = 1.0;
            while rate / count > OF_ONE_CLIENT {
                count += 1.0;
            }
            let period = Duration::from_secs_f64(count / rate);
            let mut number = 0.0;
            while number < count {
                let offset = period.mul_f64(number / count);
                let mut ticks = interval_at(Instant::now() + offset, period);
                ticks.set_missed_tick_behavior(late);
                clients.spawn(ask(address, ticks, Arc::clone(&request), stop.subscribe()));
                number += 1.0;
            }
        }
        Self { clients, stop }
    }

    /// Ends all; how often each status came, 0 for no answer.
    pub async fn stop(mut self) -> BTreeMap<u16, u64> {
        self.stop.send_replace(true);
        let mut sum = BTreeMap::new();
        while let Some(ended) = self.clients.join_next().await {
            for (status, count) in ended.expect("a client does not panic") {
                *sum.entry(status).or_default() += count;
            }
        }
        sum
    }
}

async fn ask(
    address: SocketAddr,
    mut ticks: Interval,
    request: Arc<str>,
    stop: watch::Receiver<bool>,
) -> BTreeMap<u16, u64> {
    let (mut statuses, mut kept) = (BTreeMap::new(), None);
    while !*stop.borrow() {
        ticks.tick().await;
        let mut client: Client = match kept.take() {
            Some(client) => client,
            None => match Client::try_connect(address).await {
                Ok(client) => client,
                Err(_) => {
                    *statuses.entry(0).or_default() += 1;
                    continue;
                }
            },
        };
        let status = match client.try_send(&*request).await {
            Ok(()) => client.try_response("GET").await.map_or(0, |response| {
                kept = (response.field("Connection") != Some("close")).then_some(client);
                response.status
            }),
            Err(_) => 0,
        };
        *statuses.entry(status).or_default() += 1;
    }
    statuses
}

/// A backend that notes when each request came, by its own clock.
#[derive(Debug)]
pub struct Arrivals {
    backend: Backend,
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Arrivals {
    /// Answers everything at once.
    #[must_use]
    pub fn open() -> Self {
        let times = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&times);
        let backend = Backend::scripted(move |_| {
            noted.lock().expect(UNBROKEN).push(Instant::now());
            vec![Action::Send(ok("here"))]
        });
        Self { backend, times }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// How many have come.
    #[must_use]
    pub fn count(&self) -> usize {
        self.times.lock().expect(UNBROKEN).len()
    }

    /// What comes within so long from now: when, in seconds from now.
    pub async fn within(&self, time: Duration) -> Window {
        let began = Instant::now();
        sleep(time).await;
        let times = self.times.lock().expect(UNBROKEN);
        let of_it = times.iter().filter(|at| **at >= began && **at < began + time);
        let mut offsets: Vec<f64> = of_it.map(|at| (*at - began).as_secs_f64()).collect();
        offsets.sort_by(f64::total_cmp);
        Window { offsets, length: time.as_secs_f64() }
    }
}

/// What came in a while.
#[derive(Clone, Debug)]
pub struct Window {
    offsets: Vec<f64>,
    length: f64,
}

impl Window {
    /// Per second, over all of it.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.offsets.len() as f64 / self.length
    }

    /// The most in any second of it.
    #[must_use]
    pub fn worst_second(&self) -> usize {
        let from = |first: usize| {
            let end = self.offsets[first] + 1.0;
            self.offsets[first..].iter().take_while(|at| **at < end).count()
        };
        (0..self.offsets.len()).map(from).max().unwrap_or(0)
    }
}
