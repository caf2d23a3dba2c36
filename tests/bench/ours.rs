//! This proxy and its control plane, as released processes before the backends of the
//! benchmark. Only the proxy is measured.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::{
    api,
    cluster::{self, Cluster},
    port::Port,
    process::{Process, Program, children_of},
};
use rustix::process::{Pid, Signal, kill_process};

/// In one write; the control plane bounds them.
const BATCH: usize = 1000;

/// The lbctl to measure, and what its command line knows.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    path: PathBuf,
    /// As it names itself.
    pub(crate) version: String,
    /// Whether it can write an access log.
    pub(crate) has_access_log: bool,
}

/// How the proxy is run.
#[derive(Debug, Default)]
pub(crate) struct Setup<'s> {
    /// Threads.
    pub(crate) workers: u16,
    /// Where to write an access log, if it is to write one.
    pub(crate) access_log: Option<&'s Path>,
    /// Program and arguments that run it: `valgrind ...`.
    pub(crate) under: &'s [String],
    /// Backends beside those that are named.
    pub(crate) further_backends: u32,
    /// A limit that is there from the start.
    pub(crate) limit: Option<pb::Limit>,
    /// Further arguments.
    pub(crate) further: &'s [String],
}

/// One proxy with its control plane; both are killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Ours {
    process: Process,
    traffic: Port,
    _admin: Port,
    _cluster: Cluster,
}

impl Binary {
    /// Finds it beside this program, unless told where it is.
    pub(crate) fn find(told: Option<PathBuf>) -> Result<Self, String> {
        let beside = || {
            let this = std::env::current_exe().map_err(|error| error.to_string())?;
            Ok::<_, String>(this.with_file_name("lbctl-under-test"))
        };
        let path = told.map_or_else(beside, Ok)?;
        let output = |args: &[&str]| {
            let output = Command::new(&path).args(args).output();
            let output = output.map_err(|error| {
                format!(
                    "cannot run {} ({error}): cargo build --release -p lb-tests",
                    path.display()
                )
            })?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let version = output(&["--version"])?.trim().to_owned();
        let has_access_log = output(&["data-plane", "--help"])?.contains("--access-log");
        Ok(Self { path, version, has_access_log })
    }
}

impl Binary {
    /// Where it is.
    pub(crate) fn path(&self) -> Result<&str, String> {
        self.path.to_str().ok_or_else(|| "the proxy's path is not UTF-8".to_owned())
    }
}

impl Ours {
    /// Starts both and waits until the proxy serves from all backends.
    pub(crate) async fn start(
        binary: &Binary,
        backends: &[SocketAddr],
        setup: &Setup<'_>,
    ) -> Result<Self, String> {
        let path = binary.path()?;
        let cluster = Cluster::start(Program::at(path), 0).await;
        if setup.further_backends > 0 {
            // The checks of thousands would take the machine away from what is measured.
            cluster.api.change_pool(cluster::no_checks).await;
            add_further(&cluster.api, backends[0].port(), setup.further_backends).await?;
        }
        cluster.add_backends(backends).await;
        if let Some(limit) = &setup.limit {
            let limit = Any::Limit(limit.clone());
            let put = cluster.api.put(limit, pb::WriteOptions::default()).await;
            put.map_err(|status| status.message().to_owned())?;
        }
        let (traffic, admin) = (Port::reserve(), Port::reserve());
        let mut command: Vec<String> = setup.under.to_vec();
        command.extend([
            path.to_owned(),
            "data-plane".to_owned(),
            "--id=bench".to_owned(),
            format!("--control-plane=http://{}", cluster.grpc()),
            "--host=127.0.0.1".to_owned(),
            format!("--port={}", traffic.address().port()),
            format!("--admin={}", admin.address()),
            format!("--data-dir={}", cluster.path("bench").display()),
            format!("--workers={}", setup.workers),
            "--accept-grace=0s".to_owned(),
            "--drain-timeout=5s".to_owned(),
            "--exit-with-parent".to_owned(),
        ]);
        command.extend_from_slice(setup.further);
        if binary.has_access_log {
            let place = setup.access_log.map_or_else(|| "off".into(), Path::to_string_lossy);
            command.push(format!("--access-log={place}"));
        }
        let process = Program::at(&command[0]).start("proxy", &command[1..]);
        process.listening().await;
        cluster.api.settled(1).await;
        Ok(Self { process, traffic, _admin: admin, _cluster: cluster })
    }

    /// Where it takes traffic.
    pub(crate) fn address(&self) -> SocketAddr {
        self.traffic.address()
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its log.
    pub(crate) fn log(&self) -> String {
        self.process.stderr()
    }

    /// Asks the proxy to stop, also one that runs as the child of a tracer, and waits for
    /// its end.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        let traced = children_of(self.process.id());
        if traced.is_empty() {
            self.process.signal(Signal::TERM);
        }
        for child in traced {
            let pid = i32::try_from(child.id).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or("not a process id")?;
            kill_process(pid, Signal::TERM).map_err(|error| error.to_string())?;
        }
        match self.process.exited().await {
            0 => Ok(()),
            code => Err(format!("the proxy ended with {code}: {}", self.process.stderr())),
        }
    }
}

/// Backends at addresses of the loopback network that all reach the same port.
pub(crate) async fn add_further(api: &api::Api, port: u16, count: u32) -> Result<(), String> {
    let items: Vec<_> = (1..=count)
        .map(|number| {
            let [_, high, middle, low] = number.to_be_bytes();
            let backend = pb::Backend {
                address: format!("127.{}.{middle}.{low}:{port}", high + 1),
                ..pb::Backend::default()
            };
            let object = pb::Object { object: Some(Any::Backend(backend)), revision: 0 };
            pb::ApplyItem { change: Some(pb::apply_item::Change::Put(object)) }
        })
        .collect();
    for batch in items.chunks(BATCH) {
        let request = pb::ApplyRequest { items: batch.to_vec(), options: None };
        api.registry().apply(request).await.map_err(|status| status.to_string())?;
    }
    Ok(())
}
