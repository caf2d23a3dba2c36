//! The addresses of one backend: asked for again when their time to live ends, and kept
//! when that fails. A name server that is away must not take a backend out that answers
//! its checks.

use std::{net::SocketAddr, time::Duration};

use lb_core::{
    model::{Address, Host, Reason},
    moment::Moment,
};
use tokio::time::Instant;

use crate::{
    clock::present,
    discovery::{Resolver, pause},
};

/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 8;

/// The addresses of one backend, the most promising first.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    known: Vec<SocketAddr>,
    /// When the name is to be asked for again; at once if there is none.
    next: Option<Instant>,
    failures: u32,
    told: Resolution,
}

/// How a name resolves, for people who ask.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Resolution {
    /// The last answer since the control plane started.
    pub(crate) resolved: Option<Moment>,
    /// For how long it holds.
    pub(crate) ttl: Duration,
    /// When the name is asked for again.
    pub(crate) next: Option<Moment>,
    /// Since when it fails; nothing when it does not.
    pub(crate) failing_since: Option<Moment>,
    /// Why.
    pub(crate) failure: Reason,
}

impl Addresses {
    /// Begins with what was known before.
    pub(super) fn resumed(known: Vec<SocketAddr>) -> Self {
        Self { known, ..Self::default() }
    }

    pub(super) fn known(&self) -> &[SocketAddr] {
        &self.known
    }

    /// How the name resolves; nothing for literal addresses.
    pub(super) fn resolution(&self, address: &Address) -> Option<Resolution> {
        matches!(address.host(), Host::Name(_)).then(|| self.told.clone())
    }

    /// Until the name is to be asked for again.
    pub(super) fn due_in(&self) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()))
    }

    /// Asks again if the answer is old. Fails only when there is no answer at all.
    pub(super) async fn refresh(
        &mut self,
        resolver: &Resolver,
        address: &Address,
        limit: Duration,
    ) -> Result<(), Reason> {
        let name = match address.host() {
            Host::Ip(ip) => {
                self.known = vec![SocketAddr::new(*ip, address.port())];
                return Ok(());
            }
            Host::Name(name) => name,
        };
        if !self.known.is_empty() && !self.due_in().is_zero() {
            return Ok(());
        }
        let failure = match resolver.addresses(name, limit).await {
            Ok(answer) => {
                let found = answer.found.into_iter().take(ADDRESSES_MAX);
                let found: Vec<_> = found.map(|ip| SocketAddr::new(ip, address.port())).collect();
                // Half an answer does not say that the other half is gone.
                let whole = answer.incomplete.is_none();
                // The order is kept: name servers shuffle it, which means nothing.
                self.known.retain(|address| !whole || found.contains(address));
                for address in found {
                    if !self.known.contains(&address) && self.known.len() < ADDRESSES_MAX {
                        self.known.push(address);
                    }
                }
                self.told.resolved = Some(present());
                self.told.ttl = answer.ttl;
                answer.incomplete
            }
            Err(reason) => Some(reason),
        };
        let pause = match &failure {
            None => {
                self.failures = 0;
                self.told.failing_since = None;
                self.told.failure = Reason::default();
                self.told.ttl
            }
            Some(reason) => {
                tracing::debug!(%address, reason.message, "keeping the last known addresses");
                self.failures += 1;
                self.told.failing_since.get_or_insert_with(present);
                self.told.failure = reason.clone();
                pause(self.failures)
            }
        };
        self.next = Some(Instant::now() + pause);
        self.told.next = Some(present().after(pause));
        match failure {
            Some(reason) if self.known.is_empty() => Err(reason),
            _ => Ok(()),
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

    /// Asks nobody but a port where nothing answers.
    fn silent() -> Resolver {
        let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Resolver::new(&[unused])
    }

    #[tokio::test]
    async fn literal_addresses_need_no_name_server() {
        let mut addresses = Addresses::default();
        let address = "[::1]:80".parse().unwrap();
        addresses.refresh(&silent(), &address, LIMIT).await.unwrap();
        assert_eq!(addresses.known(), ["[::1]:80".parse().unwrap()]);
        assert_eq!(addresses.resolution(&address), None);
    }

    #[tokio::test]
    async fn names_of_the_hosts_file_are_the_systems_whoever_else_could_be_asked() {
        let mut addresses = Addresses::default();
        let address: Address = "localhost:80".parse().unwrap();
        addresses.refresh(&silent(), &address, LIMIT).await.unwrap();
        assert!(addresses.known().iter().all(|address| address.ip().is_loopback()));
        assert_eq!(addresses.resolution(&address).unwrap().ttl, Duration::from_secs(30));
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
    async fn the_last_answer_outlives_its_name_server_and_says_so() {
        let known: Vec<SocketAddr> = vec!["127.0.0.1:80".parse().unwrap()];
        let unresolvable = "does-not-exist.invalid:80".parse().unwrap();
        let mut addresses = Addresses::resumed(known.clone());
        addresses.refresh(&silent(), &unresolvable, LIMIT).await.unwrap();
        assert_eq!(addresses.known(), known);
        let told = addresses.resolution(&unresolvable).unwrap();
        assert!(told.failing_since.is_some() && told.resolved.is_none());
        assert_eq!(told.failure.code, "dns_failure");
        let reason =
            Addresses::default().refresh(&silent(), &unresolvable, LIMIT).await.unwrap_err();
        assert!(reason.message.contains("does-not-exist.invalid"), "{}", reason.message);
    }
}
