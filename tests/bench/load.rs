//! The load: clients who each wait for their answer before they ask again, in one thread. At a
//! rate they wait until their turn comes, too.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{args::LoadArgs, response::frame};

/// For requests that are under way when the time is over.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// After so many errors a client gives up.
const ERRORS_MAX: u64 = 100;
const BUFFER: usize = 128 * 1024;

/// What became of the requests.
#[derive(Debug, Default)]
struct Tally {
    microseconds: Vec<u32>,
    errors: u64,
    last_error: Option<String>,
}

#[derive(Debug)]
struct Plan {
    address: SocketAddr,
    request: String,
    close: bool,
    left: AtomicU64,
    end: Instant,
}

/// When the next request of a client is due.
#[derive(Debug)]
struct Turn {
    due: Instant,
    step: Duration,
}

/// Prints one line of JSON.
pub(crate) async fn run(args: LoadArgs) -> Result<ExitCode, String> {
    let began = Instant::now();
    let plan = Arc::new(Plan {
        address: args.address,
        request: request(args.address, &args.path, args.close),
        close: args.close,
        left: AtomicU64::new(args.requests),
        end: began + Duration::from_millis(args.milliseconds),
    });
    // Between two requests of one client, at a rate.
    let step = args.rate.map(|rate| Duration::from_secs(1) * args.connections / rate);
    let mut clients = JoinSet::new();
    for index in 0..args.connections {
        // Spread over a step, so that they do not all ask at once.
        let turn = step.map(|step| Turn { due: began + step / args.connections * index, step });
        clients.spawn(client(Arc::clone(&plan), turn));
    }
    let mut sum = Tally::default();
    let all = async {
        while let Some(Ok(tally)) = clients.join_next().await {
            sum.microseconds.extend(tally.microseconds);
            sum.errors += tally.errors;
            sum.last_error = tally.last_error.or_else(|| sum.last_error.take());
        }
    };
    if timeout(Duration::from_millis(args.milliseconds) + LAST_ANSWERS, all).await.is_err() {
        sum.errors += clients.len() as u64;
        sum.last_error = Some("no answer in time".to_owned());
    }
    let took = began.elapsed().as_secs_f64();
    sum.microseconds.sort_unstable();
    println!(
        "{}",
        json!({
            "requests": sum.microseconds.len(),
            "errors": sum.errors,
            "last_error": sum.last_error,
            "seconds": took,
            "p50_us": percentile(&sum.microseconds, 50),
            "p99_us": percentile(&sum.microseconds, 99),
        })
    );
    Ok(ExitCode::SUCCESS)
}

/// The request that all clients send.
pub(crate) fn request(address: SocketAddr, path: &str, close: bool) -> String {
    let close = if close { "Connection: close\r\n" } else { "" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: lb-bench\r\nAccept: */*\r\n{close}\r\n"
    )
}

impl Plan {
    /// Whether there is one more request to send.
    fn take(&self, now: Instant) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        now < self.end
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

impl Turn {
    /// Waits for it; from when on the request counts. One that was kept waiting by the former
    /// answer counts from when it was due: else what takes long would hide what waits for it.
    async fn come(&mut self) -> Instant {
        let due = self.due;
        self.due += self.step;
        if due <= Instant::now() {
            return due;
        }
        sleep_until(due).await;
        Instant::now()
    }
}

async fn client(plan: Arc<Plan>, mut turn: Option<Turn>) -> Tally {
    let mut tally = Tally::default();
    let mut buffer = vec![0; BUFFER];
    let mut kept = None;
    let mut now = Instant::now();
    while tally.errors < ERRORS_MAX {
        let began = match &mut turn {
            Some(turn) if turn.due >= plan.end => break,
            Some(turn) => turn.come().await,
            None => now,
        };
        if !plan.take(now.max(began)) {
            break;
        }
        match ask(&plan, kept.take(), &mut buffer).await {
            Ok((stream, closes)) => {
                now = Instant::now();
                let took = (now - began).as_micros();
                tally.microseconds.push(u32::try_from(took).unwrap_or(u32::MAX));
                if plan.close || closes {
                    now = closed(stream).await;
                } else {
                    kept = Some(stream);
                }
            }
            Err(why) => {
                now = Instant::now();
                tally.errors += 1;
                tally.last_error = Some(why);
            }
        }
    }
    tally
}

/// One request; also whether the connection ends with it.
async fn ask(
    plan: &Plan,
    kept: Option<TcpStream>,
    buffer: &mut [u8],
) -> Result<(TcpStream, bool), String> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => connect(plan.address).await?,
    };
    let closes = exchange(&mut stream, plan.request.as_bytes(), buffer).await?;
    Ok((stream, closes))
}

/// Connects, without delaying small writes.
pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| format!("cannot connect to {address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// One request and its whole answer, which must be 200; whether the server closes then.
pub(crate) async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut [u8],
) -> Result<bool, String> {
    stream.write_all(request).await.map_err(|error| format!("cannot write: {error}"))?;
    let mut filled = 0;
    let found = loop {
        filled += more(stream, &mut buffer[filled..]).await?;
        if let Some(found) = frame(&buffer[..filled])? {
            break found;
        }
    };
    let mut left = found.length.checked_sub(filled).ok_or("more than the answer came")?;
    while left > 0 {
        let room = left.min(buffer.len());
        left -= more(stream, &mut buffer[..room]).await?;
    }
    if found.ok {
        return Ok(found.close);
    }
    Err(String::from_utf8_lossy(&buffer[..filled.min(200)]).into_owned())
}

async fn more(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize, String> {
    match stream.read(buffer).await {
        Ok(0) => Err("the connection ended within an answer, or the head is too long".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("cannot read: {error}")),
    }
}

/// Waits until the server has closed: whoever closes first pays for it, and that is to be
/// the same one each time.
async fn closed(mut stream: TcpStream) -> Instant {
    let mut rest = [0; 16];
    while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    Instant::now()
}

/// Of sorted values; 0 of none.
fn percentile(sorted: &[u32], percent: usize) -> u32 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (101, 199));
        assert_eq!(percentile(&[], 50), 0);
        assert_eq!(percentile(&[7], 99), 7);
    }
}
