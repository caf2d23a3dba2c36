//! One measurement: load from a process of its own, and what the proxy spent meanwhile.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{net::TcpStream, time::sleep};

use crate::{
    args::{Contender, Workload},
    load, peer, procfs,
};

/// Before a measurement, in milliseconds: connections are made, pools filled.
const WARM_UP_MS: u32 = 500;
/// Idle connections that are opened, if so many descriptors are allowed.
const IDLE: usize = 2000;
/// Descriptors that this process and the proxy need for everything else.
const OTHER_FILES: usize = 400;
/// Until memory that was given back is seen to be gone.
const SETTLE: Duration = Duration::from_secs(1);
/// Requests that failed, of a measurement that still counts.
const ERRORS_MAX: f64 = 0.001;

/// Whom to measure, and which processes pay.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) processes: Vec<u32>,
}

/// What one measurement found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) round: u32,
    pub(crate) contender: Contender,
    pub(crate) workload: Workload,
    pub(crate) figures: BTreeMap<&'static str, f64>,
}

impl Row {
    /// For files.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "round": self.round,
            "proxy": format!("{:?}", self.contender),
            "workload": format!("{:?}", self.workload),
            "figures": self.figures,
        })
    }
}

/// Measures one workload.
pub(crate) async fn measure(
    target: &Target,
    workload: Workload,
    seconds: u32,
) -> Result<BTreeMap<&'static str, f64>, String> {
    let args: &[&str] = match workload {
        Workload::Memory => return memory(target).await,
        Workload::KeepAlive => &["--connections=64"],
        Workload::Close => &["--connections=64", "--close"],
        Workload::Large => &["--connections=16", "--path=/1m"],
        Workload::Few2 => &["--connections=2"],
        Workload::Few4 => &["--connections=4"],
        Workload::Few8 => &["--connections=8"],
        Workload::Few16 => &["--connections=16"],
    };
    run_load(target.address, args, WARM_UP_MS).await?;
    let before = procfs::cpu_us(&target.processes)?;
    let outcome = run_load(target.address, args, seconds * 1000).await?;
    let spent = procfs::cpu_us(&target.processes)? - before;
    let figure = |name: &str| outcome[name].as_f64().unwrap_or_default();
    let requests = figure("requests");
    let mut figures = BTreeMap::from([
        ("requests", requests),
        ("requests_per_second", requests / figure("seconds")),
        ("p50_us", figure("p50_us")),
        ("p99_us", figure("p99_us")),
    ]);
    if !target.processes.is_empty() {
        figures.insert("cpu_us", spent / requests);
    }
    Ok(figures)
}

/// Runs a load to its end; an error unless practically all requests were answered.
pub(crate) async fn run_load(
    address: SocketAddr,
    args: &[&str],
    milliseconds: u32,
) -> Result<Value, String> {
    let (address, time) = (address.to_string(), format!("--milliseconds={milliseconds}"));
    let args = [&["load", &address, &time], args].concat();
    let outcome = peer::this_program()?.run(&args).await.expect(0).json();
    let count = |name: &str| outcome[name].as_f64().unwrap_or_default();
    if count("requests") == 0.0 || count("errors") > ERRORS_MAX * count("requests") {
        return Err(format!("the load failed: {outcome}"));
    }
    Ok(outcome)
}

/// Memory after a load of 64 connections, and what idle ones add, each after a request.
async fn memory(target: &Target) -> Result<BTreeMap<&'static str, f64>, String> {
    if target.processes.is_empty() {
        return Ok(BTreeMap::new());
    }
    run_load(target.address, &["--connections=64"], 2 * WARM_UP_MS).await?;
    sleep(SETTLE).await;
    let resident = procfs::memory(&target.processes)?;
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let allowed = allowed.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let count = IDLE.min(allowed.saturating_sub(OTHER_FILES) / 2);
    let request = load::request(target.address, "/", false);
    let mut buffer = [0; 4096];
    let mut idle: Vec<TcpStream> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = load::connect(target.address).await?;
        load::exchange(&mut stream, request.as_bytes(), &mut buffer).await?;
        idle.push(stream);
    }
    sleep(SETTLE).await;
    let with_idle = procfs::memory(&target.processes)?;
    Ok(BTreeMap::from([
        ("resident_bytes", resident),
        ("idle_connections", idle.len() as f64),
        ("bytes_per_idle_connection", (with_idle - resident) / idle.len() as f64),
    ]))
}
