//! Clients in a loop, who count what failed.

use std::{collections::BTreeMap, net::SocketAddr, ops::Range, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{PATIENCE, client::Client};

/// Between the requests of one client: enough to leave the machine to the servers.
const THINK: Duration = Duration::from_millis(3);
/// Failures that are described; the others are only counted.
const DESCRIBED_MAX: usize = 20;

/// GETs without pause, on connections that are kept for as long as the server keeps them.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<Tally>,
    stop: watch::Sender<bool>,
    progress: watch::Sender<BTreeMap<String, u64>>,
}

/// What became of all requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answered with 200.
    pub answered: u64,
    /// Not answered, cut off, or answered with anything else.
    pub failed: u64,
    /// Why, for the first ones.
    pub failures: Vec<String>,
    /// How often each body came.
    pub bodies: BTreeMap<String, u64>,
    /// When each answer was there, and how long it had taken.
    times: Vec<(Instant, Duration)>,
}

impl Load {
    /// Starts this many clients for each address.
    #[must_use]
    pub fn start(addresses: &[SocketAddr], clients_each: usize) -> Self {
        let stop = watch::Sender::new(false);
        let progress = watch::Sender::default();
        let mut clients = JoinSet::new();
        for address in addresses {
            for _ in 0..clients_each {
                clients.spawn(ask_on(*address, stop.subscribe(), progress.clone()));
            }
        }
        Self { clients, stop, progress }
    }

    /// Waits until this many more requests were answered.
    pub async fn answered(&self, more: u64) {
        let sum = |bodies: &BTreeMap<String, u64>| bodies.values().sum::<u64>();
        let before = sum(&self.progress.borrow());
        self.until(|bodies| sum(bodies) >= before + more).await;
    }

    /// Waits until this body has come once more.
    pub async fn answered_by(&self, body: &str) {
        let count = |bodies: &BTreeMap<String, u64>| bodies.get(body).copied().unwrap_or(0);
        let before = count(&self.progress.borrow());
        self.until(|bodies| count(bodies) > before).await;
    }

    /// How often each body has come.
    #[must_use]
    pub fn bodies(&self) -> BTreeMap<String, u64> {
        self.progress.borrow().clone()
    }

    /// Stops all clients after their present request.
    pub async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        let mut tally = Tally::default();
        while let Some(ended) = self.clients.join_next().await {
            let one = ended.expect("a client does not panic");
            tally.answered += one.answered;
            tally.failed += one.failed;
            tally.failures.extend(one.failures);
            tally.times.extend(one.times);
            for (body, count) in one.bodies {
                *tally.bodies.entry(body).or_default() += count;
            }
        }
        tally
    }

    async fn until(&self, condition: impl FnMut(&BTreeMap<String, u64>) -> bool) {
        let mut receiver = self.progress.subscribe();
        let reached = timeout(PATIENCE, receiver.wait_for(condition)).await;
        assert!(reached.is_ok(), "the load got no further than {:?}", self.bodies());
    }
}

impl Tally {
    /// Checks that nothing failed, and that something was asked.
    #[track_caller]
    pub fn assert_flawless(&self) {
        assert_eq!(self.failed, 0, "of {}: {:#?}", self.answered + self.failed, self.failures);
        assert!(self.answered > 0);
    }

    /// The time within which so many percent of the answers came that came in these spans. To be
    /// printed, and not to be asserted: the machine may be busy.
    #[must_use]
    pub fn percentile(&self, percent: usize, spans: &[Range<Instant>]) -> Duration {
        let is_within = |at: &Instant| spans.iter().any(|span| span.contains(at));
        let within = self.times.iter().filter(|(at, _)| is_within(at));
        let mut times: Vec<Duration> = within.map(|(_, took)| *took).collect();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let index = last * percent.min(100) / 100;
        times.get(index).copied().unwrap_or_default()
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < DESCRIBED_MAX {
            self.failures.push(why);
        }
    }
}

async fn ask_on(
    address: SocketAddr,
    stop: watch::Receiver<bool>,
    progress: watch::Sender<BTreeMap<String, u64>>,
) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<Client> = None;
    while !*stop.borrow() {
        let began = Instant::now();
        let client = match kept.take() {
            Some(client) => Ok(client),
            None => Client::try_connect(address).await,
        };
        match client {
            Ok(mut client) => match ask(&mut client).await {
                Ok((body, keeps)) => {
                    tally.answered += 1;
                    tally.times.push((Instant::now(), began.elapsed()));
                    *tally.bodies.entry(body.clone()).or_default() += 1;
                    progress.send_modify(|bodies| *bodies.entry(body).or_default() += 1);
                    kept = keeps.then_some(client);
                }
                Err(why) => tally.fail(why),
            },
            Err(error) => tally.fail(format!("cannot connect: {error}")),
        }
        sleep(THINK).await;
    }
    tally
}

async fn ask(client: &mut Client) -> Result<(String, bool), String> {
    let sent = client.try_send("GET / HTTP/1.1\r\nHost: load\r\n\r\n").await;
    sent.map_err(|error| error.to_string())?;
    let response = client.try_response("GET").await?;
    if response.status != 200 {
        return Err(format!("{}: {}", response.status, response.text()));
    }
    let keeps = response.field("Connection") != Some("close");
    Ok((response.text(), keeps))
}
