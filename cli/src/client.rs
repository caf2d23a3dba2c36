//! The way to a control plane.
//!
//! Several may be named; the first one that can be connected to is used. Every call
//! has a deadline, since a control plane that is stopped, but not gone, still accepts
//! connections.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use lb_proto::v1::{
    fleet_client::FleetClient, registry_client::RegistryClient, sessions_client::SessionsClient,
};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::health_client::HealthClient;

use crate::exit::{self, Exit, Failure, root_cause, unreachable};

/// How long to try one address, so that a dead first one does not use up all the time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Room for the list of 10,000 backends with their statistics.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A connected control plane.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    server: String,
    channel: Channel,
    timeout: Duration,
    /// Whether it ever answered as a control plane does.
    has_answered: Arc<AtomicBool>,
}

impl Client {
    /// Connects to the first of `servers` that accepts; `timeout` is that of each call.
    pub(crate) async fn connect(servers: &[String], timeout: Duration) -> Result<Self, Failure> {
        let (mut failures, mut forbidden) = (Vec::new(), None);
        for server in servers {
            match connect_one(server, timeout.min(CONNECT_TIMEOUT)).await {
                Ok(channel) => {
                    let has_answered = Arc::default();
                    return Ok(Self { server: server.clone(), channel, timeout, has_answered });
                }
                Err(error) if is_forbidden(&error) => forbidden = Some(server),
                Err(error) => failures.push((server, error.to_string())),
            }
        }
        if let Some(server) = forbidden {
            return Err(Failure::new(
                Exit::NotPermitted,
                format!(
                    "{server} may not be used by this user: the system gives no permission to \
                     connect; run lbctl as the user of the control plane, or have its socket and the \
                     directories above it opened to your group"
                ),
            ));
        }
        Err(match failures.as_slice() {
            [] => Failure::new(Exit::Usage, "--server is empty; name a control plane's URL"),
            [(server, why)] => unreachable(server, why),
            several => {
                let all: Vec<String> =
                    several.iter().map(|(server, why)| format!("{server} ({why})")).collect();
                Failure::new(
                    Exit::Unreachable,
                    format!(
                        "cannot reach any control plane: {}; start one with 'lbctl \
                         control-plane', or correct --server or LBCTL_SERVER",
                        all.join(", ")
                    ),
                )
            }
        })
    }

    /// The desired state.
    pub(crate) fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Proxies, verdicts, statistics, events.
    pub(crate) fn fleet(&self) -> FleetClient<Channel> {
        FleetClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Sessions and what signs them.
    pub(crate) fn sessions(&self) -> SessionsClient<Channel> {
        SessionsClient::new(self.channel.clone())
    }

    /// Whether its services do their work.
    pub(crate) fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    /// The address that answered.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The time that a command may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Awaits an answer until the deadline.
    pub(crate) async fn call<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.call_within(self.timeout, answer).await
    }

    /// Awaits an answer for this long.
    pub(crate) async fn call_within<T>(
        &self,
        timeout: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(response)) => {
                self.has_answered.store(true, Relaxed);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(self.failure(&Status::deadline_exceeded(""))),
        }
    }

    /// What an error of a call or of a stream means.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        match exit::connection_failure(status) {
            // It spoke gRPC a moment ago.
            Some(why) if self.has_answered.load(Relaxed) => unreachable(&self.server, &why),
            _ => Failure::from_status(status, &self.server),
        }
    }
}

/// Whether the system does not let this user connect.
fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// What went wrong, with the kind of its first cause.
fn refused(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut kind = io::ErrorKind::Other;
    let mut cause = Some(error);
    while let Some(error) = cause {
        kind = error.downcast_ref::<io::Error>().map_or(kind, io::Error::kind);
        cause = error.source();
    }
    io::Error::new(kind, root_cause(error))
}

async fn connect_one(server: &str, timeout: Duration) -> io::Result<Channel> {
    let endpoint = Endpoint::from_shared(server.to_owned())
        .map_err(|error| refused(&error))?
        .connect_timeout(timeout)
        .tcp_nodelay(true);
    match tokio::time::timeout(timeout, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => {
            Err(io::Error::other(format!("no answer within {}", crate::format::duration(timeout))))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// An address at which nobody listens.
    fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    #[tokio::test]
    async fn all_addresses_are_tried_and_named() {
        let servers = [nobody(), nobody()];
        let failure = Client::connect(&servers, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(servers.iter().all(|server| failure.message.contains(server)), "{failure}");
        assert!(failure.message.contains("connection refused"), "{failure}");
    }

    #[tokio::test]
    async fn a_second_address_stands_in_for_a_dead_first_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let living = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::connect(&[nobody(), living.clone()], Duration::from_secs(5)).await;
        assert_eq!(client.unwrap().server, living);
    }
}
