//! The access log: one JSON line for each request, to a file or to stdout.
//!
//! Workers collect lines and hand them over in batches; a thread of its own writes them.
//! It may be slow, or stuck on a full disk: traffic does not wait for it. What does not
//! fit into its queue is dropped and counted.

use std::{
    cell::{Cell, RefCell},
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use lb_core::model::{ListenerName, ProxyId};
use tokio::sync::Notify;
use tracing::{error, info};

use crate::{
    clock,
    http::record::{Record, write_string},
};

/// Lines of a worker are handed over at this size,
const BATCH_BYTES: usize = 32 * 1024;
/// or after this long.
const BATCH_FOR: Duration = Duration::from_millis(100);
/// Batches that may wait for the writer: usually 4 MiB, some 10 000 lines.
const QUEUE_BATCHES: usize = 128;
/// Lines that are kept to be written again.
const SPARE_MAX: usize = 64;

/// Where the access log goes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum AccessLogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// To the end of a file, which is opened anew on SIGHUP.
    File(PathBuf),
}

impl fmt::Display for AccessLogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stdout => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for AccessLogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("write a file's path, - for stdout, or off".to_owned()),
            "off" => Ok(Self::Off),
            "-" => Ok(Self::Stdout),
            path => Ok(Self::File(path.into())),
        }
    }
}

/// The access log, as workers and the control thread see it.
#[derive(Debug)]
pub(crate) struct AccessLog {
    queue: SyncSender<Message>,
    /// How every line of a listener begins, by its number.
    beginnings: Vec<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Lines { bytes: Vec<u8>, count: u64 },
    Reopen,
    End,
}

impl AccessLog {
    /// Opens the log, and starts the thread that writes it.
    pub(crate) fn open(
        target: &AccessLogTarget,
        proxy: &ProxyId,
        listeners: &[ListenerName],
    ) -> io::Result<Option<(Arc<Self>, thread::JoinHandle<()>)>> {
        let output = match target {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => Output::Stdout,
            AccessLogTarget::File(path) => Output::File(append_to(path)?, path.clone()),
        };
        let (queue, messages) = sync_channel(QUEUE_BATCHES);
        let beginning = |listener: &ListenerName| {
            let mut line = b",\"proxy\":".to_vec();
            write_string(proxy.as_str().as_bytes(), &mut line);
            line.extend_from_slice(b",\"listener\":");
            write_string(listener.as_str().as_bytes(), &mut line);
            line
        };
        let beginnings = listeners.iter().map(beginning).collect();
        let dropped = Arc::<AtomicU64>::default();
        let log = Arc::new(Self { queue, beginnings, dropped: Arc::clone(&dropped) });
        let writer = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || output.write(&messages, &dropped))?;
        Ok(Some((log, writer)))
    }

    /// Opens the file anew: it may have been moved away.
    pub(crate) fn reopen(&self) {
        // A full queue is written to the old file; the next signal may find it shorter.
        if self.queue.try_send(Message::Reopen).is_err() {
            error!("the access log is busy and was not opened anew; send the signal again");
        }
    }

    /// Lets the writer end once it has written what was handed over so far.
    pub(crate) fn close(&self) {
        // With a full queue it is too slow to be waited for.
        drop(self.queue.try_send(Message::End));
    }

    /// Lines that were dropped because the writer did not keep up, or could not write.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// What writes lines.
#[derive(Debug)]
enum Output {
    Stdout,
    File(File, PathBuf),
}

impl Output {
    fn write(mut self, messages: &Receiver<Message>, dropped: &AtomicU64) {
        let mut failing = false;
        for message in messages {
            let result = match message {
                // Half a line may have been written when it failed.
                Message::Lines { bytes, count } if failing => {
                    self.append(b"\n").and_then(|()| self.append(&bytes)).inspect_err(|_| {
                        dropped.fetch_add(count, Relaxed);
                    })
                }
                Message::Lines { bytes, count } => self.append(&bytes).inspect_err(|_| {
                    dropped.fetch_add(count, Relaxed);
                }),
                Message::Reopen => {
                    self.reopen();
                    continue;
                }
                Message::End => return,
            };
            match result {
                Ok(()) if failing => {
                    info!("the access log is written again");
                    failing = false;
                }
                Err(error) if !failing => {
                    error!(%error, "the access log cannot be written; lines are lost until it can");
                    failing = true;
                }
                _ => {}
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File(file, _) => file.write_all(bytes),
        }
    }

    fn reopen(&mut self) {
        let Self::File(file, path) = self else { return };
        match append_to(path) {
            Ok(opened) => {
                *file = opened;
                info!(path = %path.display(), "the access log was opened anew");
            }
            Err(error) => error!(
                path = %path.display(),
                %error,
                "the access log cannot be opened anew; lines go on into the old file. Mend the \
                 path and send HUP again"
            ),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    // Opening a pipe for writing waits for its reader, opening it for both does not.
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    OpenOptions::new().read(is_pipe).create(!is_pipe).append(true).open(path)
}

/// The lines that one worker collects.
#[derive(Debug)]
pub(crate) struct Lines {
    log: Arc<AccessLog>,
    batch: RefCell<Vec<u8>>,
    count: Cell<u64>,
    begun: Notify,
    spare: RefCell<Vec<Vec<u8>>>,
    /// The second that `date` tells.
    second: Cell<u64>,
    date: RefCell<String>,
}

impl Lines {
    pub(crate) fn new(log: Arc<AccessLog>) -> Self {
        Self {
            log,
            batch: RefCell::default(),
            count: Cell::new(0),
            begun: Notify::new(),
            spare: RefCell::default(),
            second: Cell::new(u64::MAX),
            date: RefCell::default(),
        }
    }

    /// Begins the line of a request.
    pub(crate) fn begin(
        self: &Rc<Self>,
        peer: SocketAddr,
        listener: usize,
        now: Instant,
    ) -> Box<Record> {
        let mut line = self.spare.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(1024));
        line.extend_from_slice(b"{\"time\":\"");
        self.write_time(&mut line);
        line.push(b'"');
        if let Some(beginning) = self.log.beginnings.get(listener) {
            line.extend_from_slice(beginning);
        }
        Box::new(Record::new(line, peer, now, Some(Rc::clone(self))))
    }

    /// Adds a line to the log.
    pub(crate) fn finish(&self, mut record: Record, now: Instant) {
        self.add(record.end(now));
    }

    /// Adds the line of a record that has ended.
    pub(crate) fn add(&self, mut line: Vec<u8>) {
        let mut batch = self.batch.borrow_mut();
        if batch.is_empty() {
            self.begun.notify_one();
        }
        batch.extend_from_slice(&line);
        self.count.set(self.count.get() + 1);
        let full = batch.len() >= BATCH_BYTES;
        drop(batch);
        if full {
            self.hand_over();
        }
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_MAX && line.capacity() <= 4096 {
            line.clear();
            spare.push(line);
        }
    }

    /// Hands lines over that have waited for long enough, for as long as it is polled.
    pub(crate) async fn drive(self: Rc<Self>) {
        loop {
            self.begun.notified().await;
            tokio::time::sleep(BATCH_FOR).await;
            self.hand_over();
        }
    }

    fn hand_over(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.is_empty() {
            return;
        }
        let size = batch.capacity();
        let bytes = std::mem::replace(&mut *batch, Vec::with_capacity(size));
        let count = self.count.replace(0);
        match self.log.queue.try_send(Message::Lines { bytes, count }) {
            Ok(()) => {}
            Err(TrySendError::Full(Message::Lines { count, .. })) => {
                self.log.dropped.fetch_add(count, Relaxed);
            }
            Err(_) => {}
        }
    }

    fn write_time(&self, line: &mut Vec<u8>) {
        let now_ms = clock::unix_ms();
        let second = now_ms / 1000;
        if self.second.replace(second) != second {
            let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second));
            let mut date = time.to_string();
            date.truncate("2026-11-24T00:00:00".len());
            self.date.replace(date);
        }
        line.extend_from_slice(self.date.borrow().as_bytes());
        let ms = now_ms % 1000;
        line.push(b'.');
        for digit in [ms / 100, ms / 10 % 10, ms % 10] {
            line.push(b"0123456789"[(digit % 10) as usize]);
        }
        line.push(b'Z');
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_or_a_word() {
        assert_eq!("off".parse(), Ok(AccessLogTarget::Off));
        assert_eq!("-".parse(), Ok(AccessLogTarget::Stdout));
        assert_eq!("/var/log/lb".parse(), Ok(AccessLogTarget::File("/var/log/lb".into())));
        assert!("".parse::<AccessLogTarget>().is_err());
    }

    #[test]
    fn lines_are_written_in_batches_and_the_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let target = AccessLogTarget::File(path.clone());
        let proxy = ProxyId::new("p1").unwrap();
        let listeners = [ListenerName::default_listener()];
        let (log, writer) = AccessLog::open(&target, &proxy, &listeners).unwrap().unwrap();
        let lines = Rc::new(Lines::new(Arc::clone(&log)));
        let now = crate::worker::now();
        let write = |count: usize| {
            for _ in 0..count {
                let peer = SocketAddr::from(([192, 0, 2, 1], 1));
                lines.finish(*lines.begin(peer, 0, now), now);
            }
            lines.hand_over();
        };
        write(500);
        let moved = dir.path().join("access.log.1");
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        write(7);
        log.close();
        writer.join().unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&moved).lines().count(), 500);
        assert_eq!(read(&path).lines().count(), 7);
        for line in read(&path).lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["proxy"], "p1");
            assert_eq!(line["listener"], "default");
            assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        }
    }

    #[test]
    fn what_does_not_fit_into_the_queue_is_counted() {
        let (queue, _messages) = sync_channel(1);
        let log = Arc::new(AccessLog { queue, beginnings: vec![], dropped: Arc::default() });
        let lines = Rc::new(Lines::new(Arc::clone(&log)));
        let now = crate::worker::now();
        for _ in 0..3 {
            lines.finish(*lines.begin(SocketAddr::from(([192, 0, 2, 1], 1)), 0, now), now);
            lines.hand_over();
        }
        assert_eq!(log.dropped(), 2);
    }
}
