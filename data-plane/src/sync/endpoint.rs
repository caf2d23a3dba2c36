//! Where a control plane is, and what keeps a proxy from speaking with it.

use std::time::Duration;

use lb_proto::server::{GRPC_PORT, Server, parse_server};
use tonic::{Code, Status, transport::Endpoint};

use super::CONNECT_TIMEOUT;

/// A control plane to follow: `http://HOST:PORT`, `HOST`, or `unix:/PATH`.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    url: String,
    host: Option<String>,
    endpoint: Endpoint,
}

impl ControlPlane {
    /// Reads what `--control-plane` says.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: String| format!("--control-plane: {why}");
        let Server { url, host } = parse_server(text).map_err(wrong)?;
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| wrong(format!("{text:?} is no address: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        Ok(Self { url, host, endpoint })
    }

    /// As it is named to people.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// None for a Unix socket.
    pub(super) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What is wrong when a call to it has failed.
    pub(super) fn problem(&self, status: &Status) -> String {
        if !speaks_something_else(status) {
            return status.message().to_owned();
        }
        format!(
            "what answers at {} does not speak gRPC; name the control plane's gRPC address with \
             --control-plane (its default port is {GRPC_PORT}; 9401 is for HTTP)",
            self.url
        )
    }
}

/// Why a stream that was there ended: what the control plane said, or what became of the
/// connection, of which the transport's own words name neither side.
pub(super) fn broken(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    match cause {
        Some(cause) => format!("the connection to it broke: {cause}"),
        None => status.message().to_owned(),
    }
}

/// Whether an answer came from something that speaks no gRPC: its error has a cause in the
/// transport, or complains of what an answer in gRPC has.
fn speaks_something_else(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Internal)
        && (std::error::Error::source(status).is_some()
            || status.message().contains("grpc-status")
            || status.message().contains("content-type"))
}

/// An error with its causes, each told once: tonic's own text is just "transport error", and some
/// errors repeat what caused them.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut parts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        match parts.last_mut() {
            Some(last) if last.contains(&text) => {}
            Some(last) if text.contains(&*last) => *last = text,
            _ => parts.push(text),
        }
        source = cause.source();
    }
    if parts.len() > 1 && parts[0] == "transport error" {
        parts.remove(0);
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_no_address_is_refused_with_its_flag() {
        for text in ["", "https://lb.example", "lb.example:x"] {
            let why = ControlPlane::parse(text).unwrap_err();
            assert!(why.starts_with(&format!("--control-plane: {text:?} is no")), "{why}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let control_plane = ControlPlane::parse(&address.to_string()).unwrap();
        let why = chain(&control_plane.endpoint().connect().await.unwrap_err());
        assert_eq!(why.matches("Connection refused").count(), 1, "{why}");
        assert_eq!(why.matches("tcp connect error").count(), 1, "{why}");
        assert!(!why.contains("transport error"), "{why}");
    }

    #[test]
    fn a_port_that_speaks_something_else_is_told_in_words() {
        let control_plane = ControlPlane::parse("127.0.0.1:9401").unwrap();
        let status = Status::from_error(Box::new(std::io::Error::other("h2 protocol error")));
        let why = control_plane.problem(&status);
        assert!(why.starts_with("what answers at http://127.0.0.1:9401 does not speak"), "{why}");
        assert_eq!(control_plane.problem(&Status::already_exists("in use")), "in use");
    }
}
