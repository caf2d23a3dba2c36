//! Sockets to accept on.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::RunError;

/// Connections that the kernel keeps until a worker accepts them; it cuts this to
/// `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// One socket for each worker on the same address; where they really listen.
///
/// With `SO_REUSEPORT` a second process on the same port would be let in silently,
/// so the address is tried without it first.
pub(crate) fn for_workers(
    address: SocketAddr,
    workers: usize,
    flag: &'static str,
) -> Result<(SocketAddr, Vec<TcpListener>), RunError> {
    let failed = |cause: io::Error| {
        if cause.kind() == io::ErrorKind::AddrInUse {
            RunError::AddressInUse { address, flag, cause }
        } else {
            RunError::Listen { address, flag, cause }
        }
    };
    let address = usable(address);
    if address.port() != 0 {
        drop(bind(address, false).map_err(failed)?);
    }
    let first = bind(address, true).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let others = (1..workers).map(|_| bind(bound, true).map_err(failed));
    let listeners = std::iter::once(Ok(first)).chain(others).collect::<Result<_, _>>()?;
    Ok((bound, listeners))
}

/// Sockets that were handed over, and more on the same address if there are more workers.
pub(crate) fn with_inherited(
    mut sockets: Vec<TcpListener>,
    workers: usize,
    flag: &'static str,
) -> Result<(SocketAddr, Vec<TcpListener>), RunError> {
    let Some(first) = sockets.first() else {
        return Err(RunError::System(io::Error::other("no sockets were handed over")));
    };
    let address = first.local_addr()?;
    for _ in sockets.len()..workers {
        let failed = |cause| RunError::Listen { address, flag, cause };
        sockets.push(bind(address, true).map_err(failed)?);
    }
    Ok((address, sockets))
}

/// Whether an address that is asked for is one that is bound already.
pub(crate) fn is_same(wanted: SocketAddr, bound: SocketAddr) -> bool {
    let wanted = usable(wanted);
    wanted.ip() == bound.ip() && (wanted.port() == 0 || wanted.port() == bound.port())
}

/// Where there is no IPv6, the wildcard means that of IPv4.
fn usable(address: SocketAddr) -> SocketAddr {
    let is_wildcard = address.is_ipv6() && address.ip().is_unspecified();
    if is_wildcard && Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_err() {
        return SocketAddr::from(([0, 0, 0, 0], address.port()));
    }
    address
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_and_strangers_are_noticed() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (bound, listeners) = for_workers(any, 3, "--port").unwrap();
        assert_eq!(listeners.len(), 3);
        let error = for_workers(bound, 1, "--port").unwrap_err();
        assert_eq!(error.exit_code(), 9);
        assert!(error.to_string().contains(&bound.to_string()));
    }

    #[test]
    fn an_address_of_another_machine_is_told_with_the_flag_that_chooses_it() {
        // Of the addresses for documentation, which no machine has.
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
        for (flag, told) in [("--port", "with --host"), ("--admin", "with --admin")] {
            let error = for_workers(elsewhere, 1, flag).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("does not have that address") && text.contains(told), "{text}");
            assert_eq!(error.exit_code(), 78);
        }
    }
}
