//! What the children of a `dev` are, as command lines, and what they say about
//! themselves when they are ready.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::plan::ProxyPlan;
use crate::args::Dev;

/// One child. Its addresses have port 0 until it has said which one it took.
#[derive(Clone, Debug)]
pub(super) struct Role {
    name: String,
    kind: Kind,
    debug: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    ControlPlane {
        grpc: SocketAddr,
        http: SocketAddr,
        data_dir: PathBuf,
        config: Option<PathBuf>,
    },
    Proxy {
        plan: ProxyPlan,
        server: String,
        data_dir: PathBuf,
        access_log: String,
        workers: Option<u16>,
    },
    DemoBackend {
        address: SocketAddr,
        delay: Duration,
    },
}

/// The line `listening NAME=VALUE ...` with which a child says that it is ready.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Listening(BTreeMap<String, String>);

impl Role {
    pub(super) fn control_plane(
        grpc: SocketAddr,
        http: SocketAddr,
        data_dir: &Path,
        args: &Dev,
    ) -> Self {
        let (data_dir, config) = (data_dir.join("control-plane"), args.config.clone());
        let kind = Kind::ControlPlane { grpc, http, data_dir, config };
        Self { name: "control-plane".to_owned(), kind, debug: args.debug }
    }

    pub(super) fn proxy(plan: ProxyPlan, server: &str, data_dir: &Path, args: &Dev) -> Self {
        let name = plan.id.clone();
        let kind = Kind::Proxy {
            plan,
            server: server.to_owned(),
            data_dir: data_dir.join(&name),
            access_log: args.access_log.clone(),
            workers: args.workers,
        };
        Self { name, kind, debug: args.debug }
    }

    /// It calls itself by its port; one that takes a free port is numbered here.
    pub(super) fn demo_backend(number: usize, port: u16) -> Self {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let name = if port == 0 { format!("demo-{number}") } else { format!("backend-{port}") };
        let kind = Kind::DemoBackend { address, delay: Duration::ZERO };
        Self { name, kind, debug: false }
    }

    /// A demo backend that takes so long for each request.
    pub(super) fn taking(mut self, time: Duration) -> Self {
        if let Kind::DemoBackend { delay, .. } = &mut self.kind {
            *delay = time;
        }
        self
    }

    /// As it is called in logs.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Proxies are stopped before what they depend on.
    pub(super) fn is_proxy(&self) -> bool {
        matches!(self.kind, Kind::Proxy { .. })
    }

    /// The arguments for this executable.
    pub(super) fn command_line(&self) -> Vec<String> {
        let mut line: Vec<String> = match &self.kind {
            Kind::ControlPlane { grpc, http, data_dir, config } => {
                let mut line = vec![
                    "control-plane".to_owned(),
                    format!("--grpc={grpc}"),
                    format!("--http={http}"),
                    format!("--data-dir={}", data_dir.display()),
                ];
                line.extend(config.iter().map(|file| format!("--config={}", file.display())));
                line
            }
            Kind::Proxy { plan, server, data_dir, access_log, workers } => {
                let mut line = vec![
                    "data-plane".to_owned(),
                    format!("--id={}", plan.id),
                    format!("--control-plane={server}"),
                    format!("--host={}", plan.traffic.ip()),
                    format!("--port={}", plan.traffic.port()),
                    format!("--admin={}", plan.admin),
                    format!("--data-dir={}", data_dir.display()),
                    format!("--access-log={access_log}"),
                    "--expose-lb-api".to_owned(),
                    // Nobody in front of them has to notice first that they are about to stop.
                    "--accept-grace=0s".to_owned(),
                    "--drain-timeout=3s".to_owned(),
                ];
                line.extend(workers.map(|workers| format!("--workers={workers}")));
                line
            }
            Kind::DemoBackend { address, delay } => vec![
                "demo-backend".to_owned(),
                format!("--host={}", address.ip()),
                format!("--port={}", address.port()),
                format!("--delay={}ms", delay.as_millis()),
            ],
        };
        if self.debug {
            line.push("--log-level=debug".to_owned());
        }
        line.push("--exit-with-parent".to_owned());
        line
    }

    /// Keeps the ports that the child took, so that it has them again after a restart.
    pub(super) fn settle(&mut self, listening: &Listening) {
        let keep = |address: &mut SocketAddr, name: &str| {
            if let Some(port) = listening.port(name) {
                address.set_port(port);
            }
        };
        match &mut self.kind {
            Kind::ControlPlane { grpc, http, .. } => {
                keep(grpc, "grpc");
                keep(http, "http");
            }
            Kind::Proxy { plan, .. } => {
                keep(&mut plan.traffic, "default");
                keep(&mut plan.admin, "admin");
            }
            Kind::DemoBackend { address, .. } => keep(address, "backend"),
        }
    }

    /// The same child with free ports where the port is only a habit; `None` when it has
    /// such ports already. Somebody may have taken one after it was found free.
    pub(super) fn give_way(&self) -> Option<Self> {
        let mut other = self.clone();
        let changed = match &mut other.kind {
            Kind::ControlPlane { grpc, http, .. } => give_up_port(grpc) | give_up_port(http),
            Kind::Proxy { plan, .. } => give_up_port(&mut plan.admin),
            Kind::DemoBackend { address, .. } => give_up_port(address),
        };
        changed.then_some(other)
    }

    /// The port that clients were promised.
    pub(super) fn traffic(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Proxy { plan, .. } => Some(plan.traffic),
            Kind::ControlPlane { .. } | Kind::DemoBackend { .. } => None,
        }
    }
}

fn give_up_port(address: &mut SocketAddr) -> bool {
    let had = address.port() != 0;
    address.set_port(0);
    had
}

impl Listening {
    /// Reads a line of a child's stdout, if it is that line.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let words = line.strip_prefix("listening ")?.split_whitespace();
        let pairs: BTreeMap<String, String> = words
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        (!pairs.is_empty()).then_some(Self(pairs))
    }

    /// What was said under a name, nothing if nothing was.
    pub(super) fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The port of an address.
    pub(super) fn port(&self, name: &str) -> Option<u16> {
        self.value(name).rsplit_once(':')?.1.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn proxy() -> Role {
        let plan = ProxyPlan {
            id: "proxy-1".to_owned(),
            traffic: "0.0.0.0:8080".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
        };
        let cli = Cli::try_parse_from(["lbctl", "dev", "--debug"]).unwrap();
        let Command::Dev(args) = cli.command else { panic!("another command") };
        Role::proxy(plan, "http://127.0.0.1:9400", Path::new("/state"), &args)
    }

    #[test]
    fn a_proxy_is_this_executable_under_another_command() {
        insta::assert_snapshot!(proxy().command_line().join(" "), @"data-plane --id=proxy-1 --control-plane=http://127.0.0.1:9400 --host=0.0.0.0 --port=8080 --admin=127.0.0.1:0 --data-dir=/state/proxy-1 --access-log=- --expose-lb-api --accept-grace=0s --drain-timeout=3s --log-level=debug --exit-with-parent");
    }

    #[test]
    fn the_ports_that_were_taken_are_kept() {
        let line = "listening id=proxy-1 default=0.0.0.0:8080 admin=127.0.0.1:40123";
        let mut role = proxy();
        role.settle(&Listening::parse(line).unwrap());
        assert!(role.command_line().contains(&"--admin=127.0.0.1:40123".to_owned()));
        let mut demo = Role::demo_backend(1, 0);
        demo.settle(&Listening::parse("listening backend=127.0.0.1:40001").unwrap());
        assert!(demo.command_line().contains(&"--port=40001".to_owned()));
        assert_eq!(demo.name(), "demo-1");
        let slow = demo.taking(Duration::from_millis(5)).command_line();
        assert!(slow.contains(&"--delay=5ms".to_owned()));
    }

    #[test]
    fn the_traffic_port_never_gives_way() {
        let mut role = proxy();
        assert!(role.give_way().is_none(), "its admin port is a free one already");
        role.settle(&Listening::parse("listening default=0.0.0.0:8080 admin=[::1]:9500").unwrap());
        let line = role.give_way().unwrap().command_line();
        assert!(line.contains(&"--port=8080".to_owned()));
        assert!(line.contains(&"--admin=127.0.0.1:0".to_owned()));
    }

    #[test]
    fn other_lines_are_not_taken_for_readiness() {
        for line in ["", "listening", "listening ", "INFO listening grpc=1", "listening soon"] {
            assert!(Listening::parse(line).is_none(), "{line}");
        }
    }
}
