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
    worker::{Timer, Wheel, until},
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
        let Self::Failed(error) = self else { return false };
        let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
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

/// Tries the addresses in turn, all of them within `timeout`.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    timeout: Duration,
    timer: &Timer,
    wheel: &Wheel,
    now: Instant,
) -> Result<TcpStream, ConnectError> {
    wheel.arm(timer, now, timeout);
    let mut last = ConnectError::NoAddress;
    for address in addresses {
        match until(timer, dial(*address)).await {
            Ok(Ok(stream)) => {
                timer.disarm();
                return Ok(stream);
            }
            Ok(Err(error)) => last = ConnectError::Failed(error),
            Err(_) => {
                last = ConnectError::TimedOut;
                break;
            }
        }
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
