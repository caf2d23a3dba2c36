//! Which ports a `dev` uses.
//!
//! Traffic ports are what was asked for, or an error: whoever types `--port 8080` means
//! to use that one. All others merely have habits and give way, so that several `dev`
//! run side by side.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use lb_proto::server::GRPC_PORT;

use crate::{
    args::Dev,
    exit::{Exit, Failure},
};

const HTTP_PORT: u16 = 9401;
const ADMIN_PORT: u16 = 9500;
const DEMO_PORTS: [u16; 3] = [8001, 8002, 8003];

/// The addresses of all children; port 0 stands for a free one.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Plan {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) proxies: Vec<ProxyPlan>,
    /// Empty when backends were given, or declared in a file.
    pub(super) demo_ports: Vec<u16>,
    /// What gave way.
    pub(super) notes: Vec<String>,
}

/// One proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ProxyPlan {
    pub(super) id: String,
    pub(super) traffic: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// Whether an address can be listened on now. The proxies share their ports between workers
/// (`SO_REUSEPORT`) and would not notice a stranger there; this does.
pub(super) fn probe(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

impl Plan {
    /// Chooses ports; `probe` tells whether one is free.
    pub(super) fn new(
        args: &Dev,
        probe: impl Fn(SocketAddr) -> io::Result<()>,
    ) -> Result<Self, Failure> {
        let traffic = traffic_ports(args)?;
        for (index, port) in traffic.iter().enumerate() {
            let address = SocketAddr::new(args.host, *port);
            probe(address).map_err(|error| refuse(args, index, address, &error, &probe))?;
        }
        let mut reserved: HashSet<u16> = traffic.iter().copied().collect();
        let mut notes = Vec::new();
        let mut choose = |port: u16, what: &str| {
            let free = !reserved.contains(&port) && probe(loopback(port)).is_ok();
            if free {
                reserved.insert(port);
                return port;
            }
            notes.push(format!("port {port} is taken: {what} uses a free one instead"));
            0
        };
        let grpc = loopback(choose(GRPC_PORT, "the control plane's gRPC"));
        let http = loopback(choose(HTTP_PORT, "the control plane's HTTP"));
        let mut proxies = Vec::new();
        for (number, port) in (1u16..).zip(traffic) {
            let id = format!("proxy-{number}");
            let admin = loopback(choose(ADMIN_PORT + number - 1, &format!("the admin of {id}")));
            proxies.push(ProxyPlan { id, traffic: SocketAddr::new(args.host, port), admin });
        }
        let demo_ports = if args.backends.is_empty() && args.config.is_none() {
            DEMO_PORTS.map(|port| choose(port, "a demo backend")).to_vec()
        } else {
            Vec::new()
        };
        Ok(Self { grpc, http, proxies, demo_ports, notes })
    }
}

/// One port for each proxy, counting up; all 0 when any will do.
fn traffic_ports(args: &Dev) -> Result<Vec<u16>, Failure> {
    if args.port == 0 {
        return Ok(vec![0; args.replicas.into()]);
    }
    let Some(last) = args.port.checked_add(args.replicas - 1) else {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "{} proxies from port {} on would end behind port 65535; choose a lower --port",
                args.replicas, args.port
            ),
        ));
    };
    Ok((args.port..=last).collect())
}

fn refuse(
    args: &Dev,
    index: usize,
    address: SocketAddr,
    error: &io::Error,
    probe: &impl Fn(SocketAddr) -> io::Result<()>,
) -> Failure {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let whose = match index {
                0 => String::new(),
                _ => format!(", which proxy-{} would take,", index + 1),
            };
            let instead = free_run(args, probe)
                .map_or_else(|| "--port".to_owned(), |port| format!("--port {port}"));
            Failure::new(
                Exit::AddressInUse,
                format!(
                    "port {port}{whose} is already in use by another process; stop that one (ss \
                     -ltnp shows it), or choose another port with {instead}"
                ),
            )
        }
        io::ErrorKind::PermissionDenied => Failure::new(
            Exit::BadConfiguration,
            format!(
                "port {port} is for privileged processes only; choose one from 1024 on with --port"
            ),
        ),
        io::ErrorKind::AddrNotAvailable => Failure::new(
            Exit::BadConfiguration,
            format!(
                "this machine does not have the address {}; choose one that it has with --host, or \
                 leave it out for all",
                address.ip()
            ),
        ),
        _ => Failure::new(
            Exit::Failed,
            format!("cannot listen on {address}: {error}; choose others with --host and --port"),
        ),
    }
}

/// A port near the one that was asked for from which on enough are free.
fn free_run(args: &Dev, probe: &impl Fn(SocketAddr) -> io::Result<()>) -> Option<u16> {
    (1..=20).filter_map(|step| args.port.checked_add(step * 10)).find(|first| {
        (0..args.replicas).all(|offset| {
            first
                .checked_add(offset)
                .is_some_and(|port| probe(SocketAddr::new(args.host, port)).is_ok())
        })
    })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &str) -> Dev {
        let words = ["lbctl", "dev"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Dev(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn plan(line: &str, taken: &[u16]) -> Result<Plan, Failure> {
        Plan::new(&args(line), |address| {
            if taken.contains(&address.port()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Ok(())
        })
    }

    #[test]
    fn the_usual_ports_are_taken_in_order() {
        let plan = plan("", &[]).unwrap();
        assert_eq!((plan.grpc.port(), plan.http.port()), (9400, 9401));
        let proxies: Vec<String> = plan
            .proxies
            .iter()
            .map(|p| format!("{} {} {}", p.id, p.traffic, p.admin.port()))
            .collect();
        assert_eq!(proxies, ["proxy-1 0.0.0.0:8080 9500", "proxy-2 0.0.0.0:8081 9501"]);
        assert_eq!(plan.demo_ports, [8001, 8002, 8003]);
        assert!(plan.notes.is_empty());
    }

    #[test]
    fn a_taken_traffic_port_is_one_sentence_with_a_port_that_works() {
        let failure = plan("--replicas 1", &[8080, 8090]).unwrap_err();
        assert_eq!(failure.exit, Exit::AddressInUse);
        insta::assert_snapshot!(failure.message, @"port 8080 is already in use by another process; stop that one (ss -ltnp shows it), or choose another port with --port 8100");
        let failure = plan("", &[8081]).unwrap_err();
        insta::assert_snapshot!(failure.message, @"port 8081, which proxy-2 would take, is already in use by another process; stop that one (ss -ltnp shows it), or choose another port with --port 8090");
    }

    #[test]
    fn all_other_ports_give_way() {
        let plan = plan("--port 8000 --replicas 3", &[9400, 9501]).unwrap();
        assert_eq!((plan.grpc.port(), plan.http.port()), (0, 9401));
        let admins: Vec<u16> = plan.proxies.iter().map(|proxy| proxy.admin.port()).collect();
        assert_eq!(admins, [9500, 0, 9502]);
        // 8001 and 8002 are traffic ports here.
        assert_eq!(plan.demo_ports, [0, 0, 8003]);
        assert_eq!(plan.notes.len(), 4);
    }

    #[test]
    fn given_backends_need_no_demo_ports() {
        assert!(plan("--backends a:1,b:2", &[8001]).unwrap().demo_ports.is_empty());
        assert!(plan("--config lb.toml", &[8001]).unwrap().demo_ports.is_empty());
    }

    #[test]
    fn ports_end_at_65535() {
        assert_eq!(plan("--port 65535 --replicas 1", &[]).unwrap().proxies.len(), 1);
        assert_eq!(plan("--port 65535", &[]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_real_listener_is_noticed() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = probe(loopback(port)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
