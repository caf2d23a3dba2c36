//! A TCP probe: connecting passes. Also the first half of an HTTP probe.

use std::{io, net::SocketAddr, time::Duration};

use lb_core::model::Reason;
use lb_proto::duration::measured_text;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// Connects, and says what came of it.
pub(super) async fn probe(address: SocketAddr, limit: Duration) -> Result<Reason, Reason> {
    let start = Instant::now();
    connect(address, start + limit, limit).await?;
    let took = measured_text(start.elapsed());
    Ok(Reason::new("check_passed", format!("{address} accepted a connection in {took}")))
}

/// Connects before a deadline, which is `limit` after the start of the probe.
pub(super) async fn connect(
    address: SocketAddr,
    deadline: Instant,
    limit: Duration,
) -> Result<TcpStream, Reason> {
    match timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
            Err(no_connection(address, limit))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Reason::new(
            "backend_connect_refused",
            format!("{address} refused the connection; is the backend running?"),
        )),
        Ok(Err(error)) => Err(Reason::new(
            "backend_connect_refused",
            format!("no connection to {address}: {error}"),
        )),
        Err(_) => Err(no_connection(address, limit)),
    }
}

fn no_connection(address: SocketAddr, limit: Duration) -> Reason {
    let message = format!("no connection to {address} within {limit:?}");
    Reason::new("backend_connect_timeout", message)
}
