//! A control plane and proxies, as processes that can be killed and started again with
//! the same ports and directories.

use std::{net::SocketAddr, path::PathBuf};

use lb_proto::v1 as pb;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    api::Api,
    port::Port,
    process::{Finished, Process, Program},
};

/// The processes of one test.
#[derive(Debug)]
pub struct Cluster {
    program: Program,
    directory: TempDir,
    grpc: Port,
    http: Port,
    control: Option<Process>,
    control_plane_args: Vec<String>,
    proxies: Vec<Proxy>,
    /// Asks the control plane.
    pub api: Api,
}

/// One proxy.
#[derive(Debug)]
pub struct Proxy {
    /// `proxy-1`, `proxy-2`, ...
    pub id: String,
    traffic: Port,
    admin: Port,
    data_dir: PathBuf,
    control_plane: String,
    further_args: Vec<String>,
    process: Option<Process>,
}

impl Cluster {
    /// Starts a control plane and this many proxies, which are in sync when it returns. The
    /// pool `default` has quick checks and no slow start.
    pub async fn start(program: Program, proxies: usize) -> Self {
        Self::start_with(program, proxies, &[]).await
    }

    /// The same, with further arguments for the proxies.
    pub async fn start_with(program: Program, proxies: usize, proxy_args: &[&str]) -> Self {
        Self::start_as(program, proxies, proxy_args, &[]).await
    }

    /// The same, with further arguments for the control plane too.
    pub async fn start_as(
        program: Program,
        proxies: usize,
        proxy_args: &[&str],
        control_plane_args: &[&str],
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (grpc, http) = (Port::reserve(), Port::reserve());
        let api = Api::new(grpc.address());
        let control_plane = format!("http://{}", grpc.address());
        let proxies: Vec<Proxy> = (1..=proxies)
            .map(|number| Proxy {
                id: format!("proxy-{number}"),
                traffic: Port::reserve(),
                admin: Port::reserve(),
                data_dir: directory.path().join(format!("proxy-{number}")),
                control_plane: control_plane.clone(),
                further_args: proxy_args.iter().map(|arg| (*arg).to_owned()).collect(),
                process: None,
            })
            .collect();
        let count = proxies.len();
        let control_plane_args = control_plane_args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut cluster = Self {
            program,
            directory,
            grpc,
            http,
            control: None,
            control_plane_args,
            proxies,
            api,
        };
        cluster.start_control_plane().await;
        for proxy in &mut cluster.proxies {
            proxy.spawn(&cluster.program);
        }
        for proxy in &cluster.proxies {
            proxy.process().listening().await;
        }
        cluster.api.settled(count).await;
        cluster.api.change_pool(prompt).await;
        cluster
    }

    /// Starts the control plane, as it was before.
    pub async fn start_control_plane(&mut self) {
        let mut args = vec![
            "control-plane".to_owned(),
            format!("--grpc={}", self.grpc.address()),
            format!("--http={}", self.http.address()),
            format!("--data-dir={}", self.control_plane_dir().display()),
            "--exit-with-parent".to_owned(),
        ];
        args.extend(self.control_plane_args.iter().cloned());
        let process = self.program.start("control-plane", &args);
        process.listening().await;
        self.control = Some(process);
    }

    /// Kills the control plane with SIGKILL.
    pub async fn kill_control_plane(&mut self) {
        self.control.take().expect("the control plane runs").kill().await;
    }

    /// Takes the control plane's process out, to watch its end.
    #[must_use]
    pub fn take_control_plane(&mut self) -> Process {
        self.control.take().expect("the control plane runs")
    }

    /// The control plane's process.
    #[must_use]
    pub fn control_plane(&self) -> &Process {
        self.control.as_ref().expect("the control plane runs")
    }

    /// Where the control plane keeps its state.
    #[must_use]
    pub fn control_plane_dir(&self) -> PathBuf {
        self.directory.path().join("control-plane")
    }

    /// Where the control plane takes gRPC.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// Where the control plane tells its health.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http.address()
    }

    /// A directory that goes with the cluster.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One proxy, counted from 0.
    #[must_use]
    pub fn proxy(&self, index: usize) -> &Proxy {
        &self.proxies[index]
    }

    /// Where the first proxy takes traffic.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.proxies[0].address()
    }

    /// Where all proxies take traffic.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.proxies.iter().map(Proxy::address).collect()
    }

    /// Kills a proxy with SIGKILL.
    pub async fn kill_proxy(&mut self, index: usize) {
        self.proxies[index].process.take().expect("the proxy runs").kill().await;
    }

    /// Starts a proxy, as it was before, and waits until it listens.
    pub async fn start_proxy(&mut self, index: usize) {
        self.proxies[index].spawn(&self.program);
        self.proxies[index].process().listening().await;
    }

    /// Takes a proxy's process out, to watch its end.
    #[must_use]
    pub fn take_proxy(&mut self, index: usize) -> Process {
        self.proxies[index].process.take().expect("the proxy runs")
    }

    /// Adds a backend of weight 1 for each address and waits until all are up and
    /// applied everywhere; their ids.
    pub async fn add_backends(&self, addresses: &[SocketAddr]) -> Vec<String> {
        let mut ids = Vec::new();
        for address in addresses {
            ids.push(self.api.add_backend(*address, 1).await);
        }
        self.settled().await;
        ids
    }

    /// Waits until all proxies are in sync and all enabled backends up.
    pub async fn settled(&self) {
        self.api.settled(self.proxies.len()).await;
    }

    /// Runs a command of lbctl against this control plane.
    pub async fn lbctl(&self, args: &[&str]) -> Finished {
        let server = format!("http://{}", self.grpc.address());
        let args: Vec<&str> =
            ["--server", &server].into_iter().chain(args.iter().copied()).collect();
        self.program.run(&args).await
    }

    /// The executable.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }
}

impl Proxy {
    /// Where it takes traffic.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.traffic.address()
    }

    /// Where it tells its health.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Its directory.
    #[must_use]
    pub fn data_dir(&self) -> &PathBuf {
        &self.data_dir
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the proxy runs")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    fn spawn(&mut self, program: &Program) {
        let mut args = vec![
            "data-plane".to_owned(),
            format!("--id={}", self.id),
            format!("--control-plane={}", self.control_plane),
            "--host=127.0.0.1".to_owned(),
            format!("--port={}", self.traffic.address().port()),
            format!("--admin={}", self.admin.address()),
            format!("--data-dir={}", self.data_dir.display()),
            "--exit-with-parent".to_owned(),
        ];
        args.extend(self.further_args.iter().cloned());
        self.process = Some(program.start(&self.id, &args));
    }
}

/// Whatever changes is seen in the next few requests.
fn prompt(pool: &mut pb::Pool) {
    quick_checks(pool);
    pool.slow_start_ms = Some(0);
}

/// Checks that find out soon, and still leave a busy machine time to answer.
pub fn quick_checks(pool: &mut pb::Pool) {
    pool.health_check = Some(pb::HealthCheck {
        interval_ms: 500,
        edge_interval_ms: 100,
        timeout_ms: 500,
        ..pb::HealthCheck::default()
    });
}

/// No checks: every backend counts as up.
pub fn no_checks(pool: &mut pb::Pool) {
    pool.health_check =
        Some(pb::HealthCheck { protocol: "none".to_owned(), ..pb::HealthCheck::default() });
}
