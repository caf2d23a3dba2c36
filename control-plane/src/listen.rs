//! Addresses to listen on: TCP, or a Unix socket.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use lb_core::listening::cannot_listen;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// Connections that may wait to be accepted, if the system allows as many: after a restart all
/// proxies of a large fleet come back at once.
const BACKLOG: u32 = 4096;

/// Where to listen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// An address and a port; port 0 picks a free one.
    Tcp(SocketAddr),
    /// The path of a socket.
    Unix(PathBuf),
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// It is no address.
    #[error(
        "{flag} {text:?} is not an address; write IP:PORT, for example 127.0.0.1:9400, or unix:/PATH"
    )]
    Malformed {
        /// The flag that gave it.
        flag: &'static str,
        /// As given.
        text: String,
    },
    /// Other machines could reach it.
    #[error(
        "{flag} {address} can be reached from other machines, and management is not \
         authenticated yet; use a loopback address, or add --insecure on a network that you trust"
    )]
    Exposed {
        /// The flag that gave it.
        flag: &'static str,
        /// As given.
        address: Endpoint,
    },
    /// The system refused it, for example because somebody else listens there.
    #[error("{}", refused(.address, .cause, .flag))]
    Failed {
        /// The flag that gave it.
        flag: &'static str,
        /// As given.
        address: Endpoint,
        /// What the system said.
        cause: io::Error,
    },
}

/// A bound listener.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Endpoint {
    /// Reads `IP:PORT`, `NAME:PORT` or `unix:/PATH`.
    pub fn parse(flag: &'static str, text: &str) -> Result<Self, ListenError> {
        text.parse().map_err(|()| ListenError::Malformed { flag, text: text.to_owned() })
    }

    /// Refuses what other machines can reach.
    pub fn check_exposure(&self, flag: &'static str, insecure: bool) -> Result<(), ListenError> {
        match self {
            Self::Tcp(address) if !insecure && !address.ip().is_loopback() => {
                Err(ListenError::Exposed { flag, address: self.clone() })
            }
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    pub(crate) async fn bind(&self, flag: &'static str) -> Result<Listener, ListenError> {
        let bound = match self {
            Self::Tcp(address) => bind_tcp(*address).map(Listener::Tcp),
            Self::Unix(path) => bind_unix(path).map(Listener::Unix),
        };
        bound.map_err(|cause| ListenError::Failed { flag, address: self.clone(), cause })
    }
}

impl Listener {
    /// Accepts one connection.
    pub(crate) async fn accept(&self) -> io::Result<Either<TcpStream, UnixStream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Either::Left(stream))
            }
            Self::Unix(listener) => Ok(Either::Right(listener.accept().await?.0)),
        }
    }

    /// Where it listens in fact.
    pub(crate) fn endpoint(&self, asked: &Endpoint) -> Endpoint {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| asked.clone(), Endpoint::Tcp)
            }
            Self::Unix(_) => asked.clone(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(()) };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let addresses: Vec<SocketAddr> = text.to_socket_addrs().map_err(drop)?.collect();
        // `localhost` is both ::1 and 127.0.0.1; clients that try only one try the latter.
        let address =
            addresses.iter().find(|a| a.is_ipv4()).or_else(|| addresses.first()).ok_or(())?;
        Ok(Self::Tcp(*address))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn refused(address: &Endpoint, error: &io::Error, flag: &str) -> String {
    match address {
        Endpoint::Unix(_) if error.kind() == io::ErrorKind::AddrInUse => format!(
            "{address} is already in use by another process; stop that one (ss -lxp shows it), or \
             choose another with {flag}"
        ),
        Endpoint::Unix(_) => {
            format!("cannot listen on {address}: {error}; choose another with {flag}")
        }
        Endpoint::Tcp(_) => cannot_listen(address, error, flag, flag),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds a socket that only this user may connect to, in place of one that a process
/// left behind when it died.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                _ => return Err(error),
            }
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_form_are_understood() {
        for text in ["127.0.0.1:0", "[::1]:9400", "unix:/run/lb.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        let named = "localhost:9400".parse::<Endpoint>().unwrap();
        assert!(named.check_exposure("--grpc", false).is_ok(), "{named}");
        for bad in ["", "9400", "unix:relative", "127.0.0.1:99999"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_other_machines_can_reach_needs_consent() {
        let open = Endpoint::parse("--grpc", "0.0.0.0:9400").unwrap();
        let refusal = open.check_exposure("--grpc", false).unwrap_err().to_string();
        assert!(refusal.contains("0.0.0.0:9400") && refusal.contains("--insecure"), "{refusal}");
        assert!(open.check_exposure("--grpc", true).is_ok());
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_its_flag() {
        let any = Endpoint::parse("--grpc", "127.0.0.1:0").unwrap();
        let first = any.bind("--grpc").await.unwrap();
        let taken = first.endpoint(&any);
        let refusal = taken.bind("--grpc").await.unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains("already in use"), "{text}");
        assert!(text.contains(&taken.to_string()) && text.contains("--grpc"), "{text}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_told_as_such() {
        // Of the addresses for documentation, which no machine has.
        let elsewhere = Endpoint::parse("--http", "192.0.2.1:0").unwrap();
        let text = elsewhere.bind("--http").await.unwrap_err().to_string();
        assert!(text.contains("does not have that address") && text.contains("--http"), "{text}");
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(directory.path().join("lb.sock"));
        let first = endpoint.bind("--grpc").await.unwrap();
        assert!(endpoint.bind("--grpc").await.is_err());
        drop(first);
        endpoint.bind("--grpc").await.unwrap();
    }
}
