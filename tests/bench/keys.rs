//! `lb-bench keys`: as many distinct keys as a busy site has clients, through a real proxy and
//! one limit, and what that takes of memory and of memory for keys.
//!
//! Each key may ask once an hour. A key that is asked for again passes only if it was forgotten,
//! so that the second round counts what eviction has cost.

use std::{net::SocketAddr, ops::Range, process::ExitCode, time::Duration};

use lb_proto::v1 as pb;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    args::KeysArgs,
    load, measure,
    ours::{Binary, Ours, Setup},
    peer, procfs,
    response::frame,
};

const CONNECTIONS: u64 = 8;
/// Requests that are sent in one go on each.
const BATCH: usize = 32;
/// Of the keys, so many parts are asked for again.
const AGAIN: u64 = 10;
/// Until memory that was given back is seen to be gone.
const SETTLE: Duration = Duration::from_secs(1);
const BUFFER: usize = 64 * 1024;

/// What a round of requests came to.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    passed: u64,
    refused: u64,
}

/// Sends the keys, and prints a table in Markdown.
pub(crate) async fn run(args: KeysArgs) -> Result<ExitCode, String> {
    let binary = Binary::find(args.proxy_binary.clone())?;
    let (_backends, backends) = peer::backends().await?;
    println!("{}, {}\n", binary.version, procfs::machine());
    println!(
        "| keys asked for | `--limit-keys` | memory before | after | seconds | forgotten of those asked for again |"
    );
    println!("|---|---|---|---|---|---|");
    for limit_keys in &args.limit_keys {
        let line = one(&binary, &backends, args.keys, *limit_keys).await?;
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// One proxy from its start to its end.
async fn one(
    binary: &Binary,
    backends: &[SocketAddr],
    keys: u64,
    limit_keys: u32,
) -> Result<String, String> {
    let limit = pb::Limit {
        name: "by-key".to_owned(),
        key: "header:x-key".to_owned(),
        rate: "1/h".to_owned(),
        burst: Some(1),
        ..pb::Limit::default()
    };
    let further = [format!("--limit-keys={limit_keys}")];
    let setup = Setup { workers: 1, limit: Some(limit), further: &further, ..Setup::default() };
    let ours = Ours::start(binary, backends, &setup).await?;
    // Requests without the field: buffers and connections are there, and no key is.
    measure::run_load(ours.address(), &["--connections=8"], 1000).await?;
    sleep(SETTLE).await;
    let before = procfs::memory(&[ours.id()])?;
    let began = Instant::now();
    let first = round(ours.address(), keys, 1).await?;
    let seconds = began.elapsed().as_secs_f64();
    if first.refused > 0 {
        return Err(format!("keys that were asked for once were refused: {first:?}"));
    }
    sleep(SETTLE).await;
    let after = procfs::memory(&[ours.id()])?;
    let again = round(ours.address(), keys, AGAIN).await?;
    ours.stop().await?;
    let forgotten = 100.0 * again.passed as f64 / (again.passed + again.refused) as f64;
    let mib = |bytes: f64| bytes / 1024.0 / 1024.0;
    Ok(format!(
        "| {keys} | {limit_keys} | {:.1} MiB | {:.1} MiB | {seconds:.0} | {forgotten:.1} % |",
        mib(before),
        mib(after)
    ))
}

/// Asks with every key whose number can be divided by `step`, once.
async fn round(address: SocketAddr, keys: u64, step: u64) -> Result<Round, String> {
    let mut clients = JoinSet::new();
    let part = keys.div_ceil(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let own = number * part..keys.min((number + 1) * part);
        clients.spawn(client(address, own, step));
    }
    let mut sum = Round::default();
    while let Some(ended) = clients.join_next().await {
        let one = ended.map_err(|error| error.to_string())??;
        sum.passed += one.passed;
        sum.refused += one.refused;
    }
    Ok(sum)
}

async fn client(address: SocketAddr, keys: Range<u64>, step: u64) -> Result<Round, String> {
    let keys: Vec<u64> = keys.filter(|key| key % step == 0).collect();
    let mut stream = load::connect(address).await?;
    let (mut sum, mut buffer) = (Round::default(), vec![0; BUFFER]);
    let mut left = keys.as_slice();
    while !left.is_empty() {
        let batch = &left[..left.len().min(BATCH)];
        let (answered, closes) = ask(&mut stream, address, batch, &mut buffer, &mut sum).await?;
        left = &left[answered..];
        if closes {
            stream = load::connect(address).await?;
        }
    }
    Ok(sum)
}

/// One go; how many were answered, and whether the proxy has had enough of the connection.
async fn ask(
    stream: &mut TcpStream,
    address: SocketAddr,
    keys: &[u64],
    buffer: &mut [u8],
    sum: &mut Round,
) -> Result<(usize, bool), String> {
    let request =
        |key: &u64| format!("GET / HTTP/1.1\r\nHost: {address}\r\nX-Key: client-{key:012}\r\n\r\n");
    let requests: String = keys.iter().map(request).collect();
    stream
        .write_all(requests.as_bytes())
        .await
        .map_err(|error| format!("cannot write: {error}"))?;
    let (mut filled, mut answered, mut closes) = (0, 0, false);
    while answered < keys.len() && !closes {
        let read = stream.read(&mut buffer[filled..]).await;
        match read.map_err(|error| format!("cannot read: {error}"))? {
            0 => return Err("the connection ended without an answer".to_owned()),
            count => filled += count,
        }
        let mut used = 0;
        while let Some(found) = frame(&buffer[used..filled])?
            && used + found.length <= filled
        {
            match &buffer[used..filled] {
                _ if found.ok => sum.passed += 1,
                answer if answer.starts_with(b"HTTP/1.1 429 ") => sum.refused += 1,
                answer => return Err(String::from_utf8_lossy(&answer[..found.length]).into()),
            }
            (used, answered) = (used + found.length, answered + 1);
            closes |= found.close;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
    Ok((answered, closes))
}
