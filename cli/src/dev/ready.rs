//! What a `dev` says when it serves: where, what, and what to try.

use std::{
    env,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Listening, setup};
use crate::{
    clock,
    command::{Session, backend_table, proxy_table},
    exit::Failure,
    output::Screen,
    view::{BackendView, ProxyView},
};

/// How the start went.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What is not as it should be.
    pub(super) problems: Vec<String>,
    pub(super) took: Duration,
    /// The state is that of a file.
    pub(super) declared: bool,
}

/// Reads the state once more and lays it out.
pub(super) async fn block(
    session: &Session,
    control: &Listening,
    proxies: &[Listening],
    outcome: &Outcome,
) -> Result<String, Failure> {
    let (proxy_views, _) = setup::list_proxies(&session.client).await?;
    let (backend_views, _) = setup::list_backends(&session.client).await?;
    let facts = Facts {
        control,
        proxies,
        proxy_views: &proxy_views,
        backend_views: &backend_views,
        outcome,
        program: program(),
    };
    Ok(facts.lay_out(clock::unix_ms(), session.screen))
}

struct Facts<'a> {
    control: &'a Listening,
    proxies: &'a [Listening],
    proxy_views: &'a [ProxyView],
    backend_views: &'a [BackendView],
    outcome: &'a Outcome,
    program: String,
}

impl Facts<'_> {
    fn lay_out(&self, now: u64, screen: Screen) -> String {
        let seconds = self.outcome.took.as_secs_f64();
        let mut text = if self.outcome.problems.is_empty() {
            format!("\nready in {seconds:.1} s\n")
        } else {
            format!(
                "\nready in {seconds:.1} s, but not all is well: {}\n",
                self.outcome.problems.join("; ")
            )
        };
        text += "\n";
        for proxy in self.proxies {
            let (id, at, admin) = (proxy.value("id"), proxy.value("default"), proxy.value("admin"));
            text += &format!("  {id:<15} {:<28} admin http://{admin}\n", url(at));
        }
        let (grpc, http) = (self.control.value("grpc"), self.control.value("http"));
        text +=
            &format!("  {:<15} {:<28} gRPC {grpc}\n\n", "control plane", format!("http://{http}"));
        text += &screen.render(&proxy_table(self.proxy_views, now, false));
        text += "\n";
        text += &screen.render(&backend_table(self.backend_views, now, false));
        text += "\nTry:\n";
        let first = self.proxies.first().map(|proxy| url(proxy.value("default")));
        text += &format!("  curl -s {}/\n", first.unwrap_or_default());
        let server =
            if grpc == "127.0.0.1:9400" { String::new() } else { format!(" --server {grpc}") };
        let program = &self.program;
        text += &format!("  {program}{server} status\n");
        text += &format!("  {program}{server} set-algorithm default least_connections\n");
        text += if self.outcome.declared {
            "\nCtrl-C stops everything.\n\n"
        } else {
            "\nX-Forwarded-For is believed, whoever sends it. Ctrl-C stops everything.\n\n"
        };
        text
    }
}

/// What to type in a browser for an address that a proxy listens on.
fn url(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            format!("http://localhost:{}", address.port())
        }
        Ok(address) => match address.ip() {
            IpAddr::V4(ip) => format!("http://{ip}:{}", address.port()),
            IpAddr::V6(ip) => format!("http://[{ip}]:{}", address.port()),
        },
        Err(_) => format!("http://{address}"),
    }
}

/// As it was called, so that the examples can be copied.
fn program() -> String {
    env::args().next().filter(|name| name.contains('/')).unwrap_or_else(|| "lbctl".to_owned())
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;
    use crate::args::OutputFormat;

    #[test]
    fn the_ready_block_shows_where_what_and_what_next() {
        let control = Listening::parse("listening grpc=127.0.0.1:41000 http=127.0.0.1:9401");
        let proxy =
            Listening::parse("listening id=proxy-1 default=0.0.0.0:8080 admin=127.0.0.1:9500");
        let view = ProxyView::from(pb::Proxy {
            id: "proxy-1".to_owned(),
            state: "synced".to_owned(),
            applied_revision: 8,
            ..pb::Proxy::default()
        });
        let took = Duration::from_millis(1420);
        let outcome = Outcome { problems: Vec::new(), took, declared: false };
        let facts = Facts {
            control: &control.unwrap(),
            proxies: &[proxy.unwrap()],
            proxy_views: &[view],
            backend_views: &[],
            outcome: &outcome,
            program: "lbctl".to_owned(),
        };
        let text = facts.lay_out(0, Screen::new(OutputFormat::Table));
        insta::assert_snapshot!(text, @r"
        ready in 1.4 s

          proxy-1         http://localhost:8080        admin http://127.0.0.1:9500
          control plane   http://127.0.0.1:9401        gRPC 127.0.0.1:41000

        PROXY    STATE   REVISION  LAG  SEEN  REQ/S  LISTEN
        proxy-1  synced         8  0ms   0ms      0

        ID  ADDRESS  POOL  WEIGHT  STATE  SINCE  IN-FLIGHT  REQUESTS  FAILED

        Try:
          curl -s http://localhost:8080/
          lbctl --server 127.0.0.1:41000 status
          lbctl --server 127.0.0.1:41000 set-algorithm default least_connections

        X-Forwarded-For is believed, whoever sends it. Ctrl-C stops everything.
        ");
    }

    #[test]
    fn every_address_is_something_to_open() {
        for (address, opened) in [
            ("0.0.0.0:8080", "http://localhost:8080"),
            ("[::]:8080", "http://localhost:8080"),
            ("10.0.0.1:80", "http://10.0.0.1:80"),
            ("[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(url(address), opened);
        }
    }
}
