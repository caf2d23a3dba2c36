//! Names to addresses, for the whole fleet: proxies are given addresses.
//!
//! The system's resolver tells no time to live, so a name is asked for again after
//! 30 s. The last answer is kept when it fails: a name server that is away must not
//! take a backend out that answers its checks.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lb_core::model::{Address, Host, Reason};
use tokio::{
    net::lookup_host,
    sync::Semaphore,
    time::{Instant, timeout_at},
};

/// How old an answer may be.
pub(super) const TTL: Duration = Duration::from_secs(30);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 8;
/// Names asked for at once; each takes a thread of the blocking pool.
const LOOKUPS_MAX: usize = 16;

/// Asks the system.
#[derive(Debug)]
pub(super) struct Resolver {
    permits: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    async fn lookup(&self, address: &Address, limit: Duration) -> Result<Vec<SocketAddr>, Reason> {
        let name = match address.host() {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, address.port())]),
            Host::Name(name) => Arc::clone(name),
        };
        let failed = |what: String| {
            let message = format!("the name {name} could not be resolved: {what}");
            Reason::new("dns_failure", message)
        };
        let deadline = Instant::now() + limit;
        let slow = || failed(format!("no answer within {limit:?}"));
        let permit = Arc::clone(&self.permits).acquire_owned();
        let Ok(permit) = timeout_at(deadline, permit).await else { return Err(slow()) };
        let (host, port) = (Arc::clone(&name), address.port());
        // A task of its own: the system's resolver cannot be interrupted, and its
        // thread must keep the permit for as long as it really takes.
        let lookup = tokio::spawn(async move {
            let _permit = permit;
            lookup_host((&*host, port)).await.map(|found| found.take(ADDRESSES_MAX).collect())
        });
        let found: Vec<SocketAddr> = match timeout_at(deadline, lookup).await {
            Ok(Ok(Ok(found))) => found,
            Ok(Ok(Err(error))) => return Err(failed(error.to_string())),
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(slow()),
        };
        if found.is_empty() {
            return Err(failed("it has no addresses".to_owned()));
        }
        Ok(found)
    }
}

/// The addresses of one backend, the most promising first.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    known: Vec<SocketAddr>,
    asked: Option<Instant>,
}

impl Addresses {
    /// Begins with what was known before.
    pub(super) fn resumed(known: Vec<SocketAddr>) -> Self {
        Self { known, asked: None }
    }

    pub(super) fn known(&self) -> &[SocketAddr] {
        &self.known
    }

    /// Asks again if the answer is old. Fails only when there is no answer at all.
    pub(super) async fn refresh(
        &mut self,
        resolver: &Resolver,
        address: &Address,
        limit: Duration,
    ) -> Result<(), Reason> {
        if self.asked.is_some_and(|asked| asked.elapsed() < TTL) && !self.known.is_empty() {
            return Ok(());
        }
        match resolver.lookup(address, limit).await {
            Ok(found) => {
                // The order is kept: name servers shuffle it, which means nothing.
                self.known.retain(|address| found.contains(address));
                for address in found {
                    if !self.known.contains(&address) {
                        self.known.push(address);
                    }
                }
                self.asked = Some(Instant::now());
                Ok(())
            }
            Err(reason) if self.known.is_empty() => Err(reason),
            Err(reason) => {
                tracing::debug!(%address, reason.message, "keeping the last known addresses");
                Ok(())
            }
        }
    }

    /// Puts an address that answered first.
    pub(super) fn prefer(&mut self, address: SocketAddr) {
        if let Some(at) = self.known.iter().position(|known| *known == address) {
            self.known[..=at].rotate_right(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn literal_addresses_need_no_name_server() {
        let mut addresses = Addresses::default();
        let address = "[::1]:80".parse().unwrap();
        addresses.refresh(&Resolver::new(), &address, LIMIT).await.unwrap();
        assert_eq!(addresses.known(), ["[::1]:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn an_address_that_answers_comes_first_and_stays_first() {
        let all: Vec<SocketAddr> =
            ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"].map(|a| a.parse().unwrap()).into();
        let mut addresses = Addresses::resumed(all.clone());
        addresses.prefer(all[2]);
        assert_eq!(addresses.known(), [all[2], all[0], all[1]]);
    }

    #[tokio::test]
    async fn the_last_answer_outlives_its_name_server() {
        let known: Vec<SocketAddr> = vec!["127.0.0.1:80".parse().unwrap()];
        let unresolvable = "does-not-exist.invalid:80".parse().unwrap();
        let mut addresses = Addresses::resumed(known.clone());
        addresses.refresh(&Resolver::new(), &unresolvable, LIMIT).await.unwrap();
        assert_eq!(addresses.known(), known);
        let reason =
            Addresses::default().refresh(&Resolver::new(), &unresolvable, LIMIT).await.unwrap_err();
        assert_eq!(reason.code, "dns_failure");
        assert!(reason.message.contains("does-not-exist.invalid"), "{}", reason.message);
    }
}
