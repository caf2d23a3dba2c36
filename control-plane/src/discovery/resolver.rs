//! Names to addresses, and services to targets, with the time for which that holds.
//!
//! Name servers are asked directly, because the system's resolver tells no time to live
//! and knows no SRV records. What the system has its own mind about stays the system's:
//! `localhost`, and every name in its hosts file. Nothing is kept here; whoever asks keeps
//! the answer for [`Answer::ttl`]. Where the name servers of the system cannot be read,
//! and where they do not know a name, the system's resolver is asked, unless name servers
//! were given with `--dns-server`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{
        ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
    },
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RData, Record, RecordType},
    },
};
use lb_core::{discovery::weights, model::Reason};
use tokio::{
    net::lookup_host,
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::warn;

/// For how long an answer without a time to live holds.
pub(crate) const TTL: Duration = Duration::from_secs(30);
/// Times to live are cut to this range: zero would be a flood of questions, and a mistake
/// of a day in a zone should not last one.
pub(crate) const TTL_MIN: Duration = Duration::from_secs(1);
/// See [`TTL_MIN`].
pub(crate) const TTL_MAX: Duration = Duration::from_secs(300);
/// Names that the system is asked for at once; each takes a thread of the blocking pool.
const LOOKUPS_MAX: usize = 16;
/// Between a question and its repetition.
const RESEND: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer<T> {
    /// Never empty.
    pub(crate) found: Vec<T>,
    /// For how long it holds.
    pub(crate) ttl: Duration,
    /// Why it may not be all: one of two questions failed. What is missing then may still
    /// be there.
    pub(crate) incomplete: Option<Reason>,
}

/// A target of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    /// A name, or rarely an address, and a port.
    pub(crate) address: String,
    pub(crate) weight: lb_core::model::Weight,
    pub(crate) priority: u16,
}

/// Where names below `localhost` are.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Asks name servers and the system.
pub(crate) struct Resolver {
    /// None if the system is asked for everything.
    dns: Option<TokioResolver>,
    /// The name servers were given, and so nobody else is asked.
    given: bool,
    permits: Arc<Semaphore>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = (self.dns.is_some(), self.given);
        f.debug_tuple("Resolver").field(&how).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks these name servers, or those of the system when none are given.
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        let dns = connect(servers)
            .inspect_err(|error| {
                warn!(
                    %error,
                    "the system's name servers cannot be read; its resolver is asked instead, which \
                     tells no times to live and no SRV records; give some with --dns-server"
                );
            })
            .ok();
        let permits = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Self { dns, given: !servers.is_empty(), permits }
    }

    /// The addresses of a name, IPv4 and IPv6.
    pub(crate) async fn addresses(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<Answer<IpAddr>, Reason> {
        let deadline = Instant::now() + limit;
        let dns = match &self.dns {
            Some(dns) if !is_the_systems(name).await => dns,
            _ => {
                let told = self.ask_system(name, deadline, limit).await;
                // Not every system knows what these names mean (RFC 6761, 6.3); clients do.
                let local = is_local(name).then_some(LOOPBACK);
                return told.or_else(|failure| {
                    let found = local.ok_or(failure)?.to_vec();
                    Ok(Answer { found, ttl: TTL, incomplete: None })
                });
            }
        };
        let (v4, v6) = tokio::join!(
            timeout_at(deadline, dns.lookup(name, RecordType::A)),
            timeout_at(deadline, dns.lookup(name, RecordType::AAAA))
        );
        let failure = match (addresses(v4, limit), addresses(v6, limit)) {
            (Ok(mut found), Ok(more)) => {
                found.extend(more);
                return Ok(answer(found, None));
            }
            (Ok(found), Err(failure)) | (Err(failure), Ok(found)) => {
                let incomplete = match failure {
                    Failure::Nothing(_) => None,
                    Failure::Other(what) => Some(failed(name, &what)),
                };
                return Ok(answer(found, incomplete));
            }
            (Err(Failure::Nothing(what)), Err(Failure::Nothing(_))) => what,
            (Err(Failure::Other(what)), Err(_)) | (Err(_), Err(Failure::Other(what))) => what,
        };
        // The system may know more than name servers, say from a directory.
        if !self.given
            && let Ok(answer) = self.ask_system(name, deadline, limit).await
        {
            return Ok(answer);
        }
        Err(failed(name, &failure))
    }

    /// The targets of a service, in order of their priorities and names.
    pub(crate) async fn services(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<Answer<Target>, Reason> {
        let Some(dns) = &self.dns else {
            return Err(failed(
                name,
                "SRV records need name servers, and the system's cannot be read; give some to the \
                 control plane with --dns-server",
            ));
        };
        let deadline = Instant::now() + limit;
        let result = timeout_at(deadline, dns.lookup(name, RecordType::SRV)).await;
        let records = records(result, limit).map_err(|failure| failed(name, failure.what()))?;
        let ttl = ttl(&records);
        let mut found: Vec<_> = records
            .into_iter()
            .filter_map(|record| match record.data {
                // A target of "." says that the service is not to be had here.
                RData::SRV(srv) if !srv.target.is_root() => Some(srv),
                _ => None,
            })
            .collect();
        if found.is_empty() {
            return Err(failed(name, "it has no targets"));
        }
        found.sort_by_cached_key(|srv| (srv.priority, srv.target.to_string(), srv.port));
        // Weights are of one priority, and so is their scale.
        let found = found.chunk_by(|a, b| a.priority == b.priority).flat_map(|group| {
            let weights = weights(&group.iter().map(|srv| srv.weight).collect::<Vec<_>>());
            group.iter().zip(weights).map(|(srv, weight)| Target {
                address: format!("{}:{}", srv.target.to_ascii().trim_end_matches('.'), srv.port),
                weight,
                priority: srv.priority,
            })
        });
        Ok(Answer { found: found.collect(), ttl, incomplete: None })
    }

    async fn ask_system(
        &self,
        name: &str,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Answer<IpAddr>, Reason> {
        let slow = || failed(name, &format!("no answer within {limit:?}"));
        let permit = Arc::clone(&self.permits).acquire_owned();
        let Ok(permit) = timeout_at(deadline, permit).await else { return Err(slow()) };
        let host = name.to_owned();
        // A task of its own: the system's resolver cannot be interrupted, and its
        // thread must keep the permit for as long as it really takes.
        let lookup = tokio::spawn(async move {
            let _permit = permit;
            let found = lookup_host((&*host, 0)).await?;
            Ok::<Vec<IpAddr>, std::io::Error>(found.map(|address| address.ip()).collect())
        });
        match timeout_at(deadline, lookup).await {
            Ok(Ok(Ok(found))) if found.is_empty() => Err(failed(name, "it has no addresses")),
            Ok(Ok(Ok(found))) => Ok(Answer { found, ttl: TTL, incomplete: None }),
            Ok(Ok(Err(error))) => Err(failed(name, &error.to_string())),
            Ok(Err(error)) => Err(failed(name, &error.to_string())),
            Err(_) => Err(slow()),
        }
    }
}

fn connect(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
                .map(|one| at_port(one, server.port()));
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // Whoever asks keeps the answer, and asks again when it has ended.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.timeout = options.timeout.min(RESEND);
    builder.build()
}

fn at_port(mut connection: ConnectionConfig, port: u16) -> ConnectionConfig {
    connection.port = port;
    connection
}

/// Whether a name is this machine's by definition.
fn is_local(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether the system has its own mind about a name. Its hosts file is read each time,
/// since it is edited while we run.
async fn is_the_systems(name: &str) -> bool {
    if is_local(name) {
        return true;
    }
    let Ok(name) = Name::from_ascii(name) else { return false };
    let listed = tokio::task::spawn_blocking(move || {
        let hosts = Hosts::from_system().unwrap_or_default();
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .any(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)).is_some())
    });
    listed.await.unwrap_or(false)
}

/// Why there are no records.
enum Failure {
    /// The name servers say that there are none.
    Nothing(String),
    /// There may be some.
    Other(String),
}

impl Failure {
    fn what(&self) -> &str {
        match self {
            Self::Nothing(what) | Self::Other(what) => what,
        }
    }
}

type Asked =
    Result<Result<hickory_resolver::lookup::Lookup, NetError>, tokio::time::error::Elapsed>;

fn records(asked: Asked, limit: Duration) -> Result<Vec<Record>, Failure> {
    let error = match asked {
        Ok(Ok(lookup)) => return Ok(lookup.answers().to_vec()),
        Ok(Err(error)) => error,
        Err(_) => return Err(Failure::Other(format!("no name server answered within {limit:?}"))),
    };
    Err(match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => {
                Failure::Nothing("the name does not exist (NXDOMAIN)".to_owned())
            }
            ResponseCode::NoError => Failure::Nothing("it has no such records".to_owned()),
            code => Failure::Other(refused(code)),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => Failure::Other(refused(code)),
        NetError::Timeout => Failure::Other("no name server answered in time".to_owned()),
        error => Failure::Other(format!("the name servers cannot be asked: {error}")),
    })
}

fn refused(code: ResponseCode) -> String {
    format!("the name server failed ({})", code.to_str())
}

/// The addresses among records, with all the records that led to them.
fn addresses(asked: Asked, limit: Duration) -> Result<Vec<(IpAddr, Duration)>, Failure> {
    let records = records(asked, limit)?;
    let ttl = ttl(&records);
    let found: Vec<_> =
        records.iter().filter_map(|record| Some((record.data.ip_addr()?, ttl))).collect();
    if found.is_empty() {
        Err(Failure::Nothing("it has no addresses".to_owned()))
    } else {
        Ok(found)
    }
}

fn answer(found: Vec<(IpAddr, Duration)>, incomplete: Option<Reason>) -> Answer<IpAddr> {
    let ttl = found.iter().map(|(_, ttl)| *ttl).min().unwrap_or(TTL);
    Answer { found: found.into_iter().map(|(ip, _)| ip).collect(), ttl, incomplete }
}

fn ttl(records: &[Record]) -> Duration {
    let shortest = records.iter().map(|record| Duration::from_secs(record.ttl.into())).min();
    shortest.unwrap_or(TTL).clamp(TTL_MIN, TTL_MAX)
}

fn failed(name: &str, what: &str) -> Reason {
    Reason::new("dns_failure", format!("the name {name} could not be resolved: {what}"))
}
