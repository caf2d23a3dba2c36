//! `lb-bench compare`: every round starts every proxy afresh and then takes them in turn,
//! workload by workload, so that what is compared was measured within seconds.

use std::{fs, net::SocketAddr, path::Path, process::ExitCode};

use serde_json::{Value, json};

use crate::{
    args::{CompareArgs, Contender, Workload},
    measure::{Row, Target, measure},
    ours::{Binary, Ours, Setup},
    peer::{self, Peer},
    procfs, report,
};

/// A contender that takes part, or why it does not.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) contender: Contender,
    pub(crate) version: String,
    pub(crate) absent: Option<String>,
}

/// Holds the processes of one contender.
enum Running {
    Direct(SocketAddr),
    Ours(Box<Ours>),
    Peer(Peer),
}

/// Measures, and prints the tables.
pub(crate) async fn run(args: CompareArgs) -> Result<ExitCode, String> {
    let binary = Binary::find(args.proxy_binary.clone())?;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (_backends, backends) = peer::backends().await?;
    let mut workloads = args.workloads.clone();
    workloads.sort();
    workloads.dedup();
    let mut entries: Vec<Entry> =
        args.proxies.iter().map(|contender| entry(*contender, &binary, &args.envoy)).collect();
    let mut rows = Vec::new();
    for round in 1..=args.rounds {
        let mut running = Vec::new();
        for entry in entries.iter_mut().filter(|entry| entry.absent.is_none()) {
            let contender = entry.contender;
            match start(contender, &binary, &args.envoy, directory.path(), &backends).await {
                Ok(started) => running.push((contender, started)),
                Err(why) => {
                    eprintln!("{contender:?} does not start: {why}");
                    entry.absent = Some("did not start".to_owned());
                }
            }
        }
        for workload in &workloads {
            for (contender, started) in &running {
                match measure(&started.target(), *workload, args.seconds).await {
                    Ok(figures) => {
                        let row =
                            Row { round, contender: *contender, workload: *workload, figures };
                        eprintln!("{}", row.to_json());
                        rows.push(row);
                    }
                    Err(why) => eprintln!("{contender:?}, {workload:?}: {why}"),
                }
            }
        }
    }
    println!("{}", report::markdown(&heading(&args, &entries), &entries, &workloads, &rows));
    if let Some(path) = &args.json {
        let all: Vec<Value> = rows.iter().map(Row::to_json).collect();
        let text = format!("{:#}\n", json!({ "machine": procfs::machine(), "rows": all }));
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Running {
    fn target(&self) -> Target {
        match self {
            Self::Direct(address) => Target { address: *address, processes: Vec::new() },
            Self::Ours(ours) => Target { address: ours.address(), processes: vec![ours.id()] },
            Self::Peer(peer) => Target { address: peer.address(), processes: peer.ids() },
        }
    }
}

fn entry(contender: Contender, binary: &Binary, envoy: &Path) -> Entry {
    let (version, absent) = match contender {
        Contender::Direct | Contender::BytePump => (String::new(), None),
        Contender::Ours => (binary.version.clone(), None),
        Contender::OursLogging if binary.has_access_log => (binary.version.clone(), None),
        Contender::OursLogging => (String::new(), Some("has no --access-log yet".to_owned())),
        Contender::Nginx | Contender::Haproxy | Contender::Envoy => {
            match peer::version(contender, envoy) {
                Some(version) => (version, None),
                None => (String::new(), Some("not installed".to_owned())),
            }
        }
    };
    Entry { contender, version, absent }
}

async fn start(
    contender: Contender,
    binary: &Binary,
    envoy: &Path,
    directory: &Path,
    backends: &[SocketAddr],
) -> Result<Running, String> {
    let log = directory.join("access.log");
    let access_log = (contender == Contender::OursLogging).then_some(log.as_path());
    let setup = Setup { workers: 2, access_log, ..Setup::default() };
    match contender {
        Contender::Direct => Ok(Running::Direct(backends[0])),
        Contender::BytePump => Peer::byte_pump(backends).await.map(Running::Peer),
        Contender::Ours | Contender::OursLogging => {
            Ours::start(binary, backends, &setup).await.map(Box::new).map(Running::Ours)
        }
        Contender::Nginx | Contender::Haproxy | Contender::Envoy => {
            Peer::start(contender, envoy, directory, backends).await.map(Running::Peer)
        }
    }
}

fn heading(args: &CompareArgs, entries: &[Entry]) -> String {
    let versions: Vec<String> = entries
        .iter()
        .filter(|entry| !entry.version.is_empty() && entry.contender != Contender::OursLogging)
        .map(|entry| match entry.contender {
            // It names itself.
            Contender::Ours => entry.version.clone(),
            contender => format!("{} {}", report::name(contender), entry.version),
        })
        .collect();
    let (rounds, seconds) = (args.rounds, args.seconds);
    format!(
        "{}.\n{}.\nMedians of {rounds} interleaved rounds of {seconds} s; 2 workers, 3 backends, \
         round robin, connections to backends kept, through loopback.",
        versions.join(", "),
        procfs::machine()
    )
}

/// The column that a workload has in the tables of CPU time.
pub(crate) fn title(workload: Workload) -> &'static str {
    match workload {
        Workload::Memory => "memory",
        Workload::KeepAlive => "keep-alive, 64 connections",
        Workload::Close => "new connection each",
        Workload::Large => "1 MiB response",
        Workload::Few2 => "2 connections",
        Workload::Few4 => "4",
        Workload::Few8 => "8",
        Workload::Few16 => "16",
    }
}
