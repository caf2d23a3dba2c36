//! Ports that stay ours.
//!
//! A process that is killed and started again must find its port free, although tests
//! beside it take free ports all the time. A socket that is bound and never listens keeps
//! one: the kernel gives the port to nobody else who asks for any, lets those have it who
//! name it and say `SO_REUSEADDR` (as all servers here do), and refuses connections for
//! as long as none of those listens.

use std::{
    net::{self, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::net::{TcpListener, TcpSocket};

/// A loopback port that is kept until this is dropped.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _keeper: TcpSocket,
}

impl Port {
    /// Keeps a free port.
    #[must_use]
    pub fn reserve() -> Self {
        let keeper = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = keeper.local_addr().expect("a bound socket has an address");
        Self { address, _keeper: keeper }
    }

    /// The same port of another loopback address.
    #[must_use]
    pub fn beside(&self, ip: Ipv4Addr) -> Self {
        let address = SocketAddr::from((ip, self.address.port()));
        Self { address, _keeper: bound(address) }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens there.
    #[must_use]
    pub fn listen(&self) -> TcpListener {
        let listener = bound(self.address).listen(1024);
        listener.unwrap_or_else(|error| panic!("cannot listen on {}: {error}", self.address))
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_reuseaddr(true).expect("SO_REUSEADDR can be set");
    socket.bind(address).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
    socket
}

/// Listens, accepts nobody, and has no room for anybody to wait: connections are neither made nor
/// refused.
#[derive(Debug)]
pub struct BlackHole {
    listener: net::TcpListener,
    _waiting: Vec<net::TcpStream>,
}

impl BlackHole {
    /// Listens on a free port, and fills its queue.
    #[must_use]
    pub fn open() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket can be made");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a port is free");
        socket.listen(1).expect("a bound socket can listen");
        let listener = net::TcpListener::from(socket);
        let address = listener.local_addr().expect("a bound socket has an address");
        // A queue of one holds two.
        let wait = Duration::from_millis(200);
        let waiting: Vec<_> =
            (0..8).map_while(|_| net::TcpStream::connect_timeout(&address, wait).ok()).collect();
        assert!(waiting.len() < 8, "the queue does not fill");
        Self { listener, _waiting: waiting }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket has an address")
    }
}
