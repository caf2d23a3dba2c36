//! Connects to a backend.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    reason::Reason,
    worker::{self, Timer, Wheel, until},
};

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Refused, unreachable, or this machine cannot.
    Failed(io::Error),
    /// No answer in time.
    TimedOut,
    /// The control plane knows no address of the backend.
    NoAddress,
}

impl ConnectError {
    /// Whether it is this process that can open no more connections.
    pub(crate) fn is_exhaustion(&self) -> bool {
        matches!(self, Self::Failed(error) if is_exhaustion(error))
    }

    /// Of the reason vocabulary.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            _ if self.is_exhaustion() => Reason::Overloaded,
            Self::Failed(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Reason::BackendConnectRefused
            }
            Self::Failed(_) => Reason::BackendConnectFailed,
            Self::TimedOut => Reason::BackendConnectTimeout,
            Self::NoAddress => Reason::DnsFailure,
        }
    }
}

/// Whether it is this process, or its machine, that can open no more connections.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Tries the addresses in turn, all of them within `timeout`: each has an even share of what is
/// left, so that one that swallows everything leaves time for the next.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    timeout: Duration,
    timer: &Timer,
    wheel: &Wheel,
    now: Instant,
) -> Result<TcpStream, ConnectError> {
    let (mut last, mut began) = (ConnectError::NoAddress, now);
    for (address, to_try) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let left = timeout.saturating_sub(began - now);
        wheel.arm(timer, began, left / u32::try_from(to_try).unwrap_or(u32::MAX));
        match until(timer, dial(*address)).await {
            Ok(Ok(stream)) => {
                timer.disarm();
                return Ok(stream);
            }
            Ok(Err(error)) => last = ConnectError::Failed(error),
            Err(_) => last = ConnectError::TimedOut,
        }
        began = worker::now();
    }
    timer.disarm();
    Err(last)
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream as Peer};

    use super::*;

    /// A port at which nobody is let in and nobody is refused.
    fn black_hole() -> (TcpListener, Vec<Peer>) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(1).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let wait = Duration::from_millis(100);
        let waiting: Vec<Peer> =
            (0..8).map_while(|_| Peer::connect_timeout(&address, wait).ok()).collect();
        assert!(waiting.len() < 8);
        (listener, waiting)
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_leaves_time_for_the_next() {
        let (hole, _waiting) = black_hole();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [hole.local_addr().unwrap(), listener.local_addr().unwrap()];
        let (wheel, timer, began) = (Wheel::new(worker::now()), Wheel::timer(), worker::now());
        let second = Duration::from_secs(1);
        let connected = tokio::select! {
            () = wheel.drive() => unreachable!("it drives for ever"),
            connected = connect(&addresses, second, &timer, &wheel, began) => connected,
        };
        assert_eq!(connected.unwrap().peer_addr().unwrap(), addresses[1]);
        let only = connect(&addresses[..1], second / 4, &timer, &wheel, worker::now());
        let timed_out = tokio::select! {
            () = wheel.drive() => unreachable!("it drives for ever"),
            connected = only => connected.unwrap_err(),
        };
        assert_eq!(timed_out.reason(), Reason::BackendConnectTimeout);
    }
}
