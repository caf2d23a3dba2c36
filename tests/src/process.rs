//! Child processes: what they say, the signals they get, and their certain end.
//!
//! Output is read by threads, not by the test's runtime, so that it is complete even when
//! a test panics. A child is killed when its handle is dropped, by its process id and only
//! while the kernel cannot have given that id to somebody else; and it ends by itself when
//! the whole test process dies, because it holds the other end of a pipe.

mod descendant;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    io::Errno,
    param::clock_ticks_per_second,
    process::{
        Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process, prlimit,
        waitid,
    },
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

pub use self::descendant::{Descendant, children_of};
use crate::{PATIENCE, wall_clock::WallClock};

/// Lines of each stream that a failed test prints.
const TAIL_LINES: usize = 60;

/// The executable under test.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    temp_dir: Option<PathBuf>,
    descriptors: Option<u64>,
    file_size: Option<u64>,
    wall_clock: Option<WallClock>,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    stdin: Option<ChildStdin>,
    log: watch::Sender<Log>,
    threads: Vec<JoinHandle<()>>,
}

/// What a child has said, and how it ended.
#[derive(Debug, Default)]
struct Log {
    stdout: Vec<String>,
    stderr: Vec<String>,
    open_streams: u8,
    exit: Option<ExitStatus>,
}

/// The line `listening NAME=ADDRESS ...` with which a server says that it is ready.
#[derive(Clone, Debug)]
pub struct Listening(BTreeMap<String, String>);

/// A command that has run to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code, or minus the signal that killed it.
    pub code: i32,
    /// All that it printed.
    pub stdout: String,
    /// All that it said beside.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Program {
    /// The executable at a path, as cargo tells it to an integration test.
    #[must_use]
    pub fn at(path: &str) -> Self {
        Self {
            path: Path::new(path).to_owned(),
            temp_dir: None,
            descriptors: None,
            file_size: None,
            wall_clock: None,
        }
    }

    /// Lets a test move its wall clock.
    #[must_use]
    pub fn with_wall_clock(mut self, clock: &WallClock) -> Self {
        self.wall_clock = Some(clock.clone());
        self
    }

    /// Makes it keep its temporary files here, where they can be cleared away even if it
    /// is killed.
    #[must_use]
    pub fn with_temp_dir(mut self, path: &Path) -> Self {
        self.temp_dir = Some(path.to_owned());
        self
    }

    /// Lets it open no more files than this.
    #[must_use]
    pub fn with_descriptors(mut self, max: u64) -> Self {
        self.descriptors = Some(max);
        self
    }

    /// Lets no file of it grow beyond this many KiB: it sees a full disk, whoever runs it.
    #[must_use]
    pub fn with_file_size(mut self, max_kib: u64) -> Self {
        self.file_size = Some(max_kib);
        self
    }

    /// Starts it.
    #[must_use]
    pub fn start(&self, name: &str, args: &[String]) -> Process {
        Process::start(name, self.command(args))
    }

    /// Runs it to its end.
    pub async fn run(&self, args: &[&str]) -> Finished {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let began = Instant::now();
        let mut process = Process::start(&args.join(" "), self.command(&args));
        let code = process.exited().await;
        Finished { code, stdout: process.stdout(), stderr: process.stderr(), took: began.elapsed() }
    }

    fn command(&self, args: &[String]) -> Command {
        // Limits are inherited, so that they hold from the first instruction on.
        let mut limits = String::new();
        if let Some(max) = self.descriptors {
            write!(limits, "ulimit -n {max}; ").expect("writing to a string cannot fail");
        }
        if let Some(max_kib) = self.file_size {
            // In units of 512 bytes; an error instead of a signal, as from a full disk. The soft
            // limit alone, so that room can be made.
            write!(limits, "trap '' XFSZ; ulimit -S -f {}; ", max_kib * 2)
                .expect("writing to a string cannot fail");
        }
        let mut command = if limits.is_empty() {
            Command::new(&self.path)
        } else {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{limits}exec \"$0\" \"$@\"")]);
            shell.arg(&self.path);
            shell
        };
        command.args(args);
        if let Some(path) = &self.temp_dir {
            command.env("TMPDIR", path);
        }
        if let Some(clock) = &self.wall_clock {
            command.envs(clock.environment());
        }
        // Settings of whoever runs the tests are not meant for what they start.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LB") {
                command.env_remove(name);
            }
        }
        command
    }
}

impl Process {
    fn start(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let pid = Pid::from_child(&child);
        let log = watch::Sender::new(Log { open_streams: 2, ..Log::default() });
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let stdin = child.stdin.take();
        let reaper = log.clone();
        let threads = vec![
            read_lines(stdout, log.clone(), |log| &mut log.stdout),
            read_lines(stderr, log.clone(), |log| &mut log.stderr),
            thread::spawn(move || {
                // Waits without reaping, so that the id stays this child's until the
                // lock is held under which signals are sent.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while waitid(WaitId::Pid(pid), options).is_err_and(|e| e == Errno::INTR) {}
                reaper.send_modify(|log| log.exit = child.wait().ok());
            }),
        ];
        Self { name: name.to_owned(), pid, stdin, log, threads }
    }

    /// As it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until it says that it listens.
    pub async fn listening(&self) -> Listening {
        let line = self.line("listening ").await;
        Listening(
            line.split_whitespace()
                .filter_map(|word| word.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// Waits for a line of stdout that contains this, and returns it.
    pub async fn line(&self, wanted: &str) -> String {
        let find = |log: &Log| log.stdout.iter().find(|line| line.contains(wanted)).cloned();
        self.until(&format!("a line with {wanted:?}"), |log| find(log).is_some()).await;
        find(&self.log.borrow()).expect("it was there a moment ago")
    }

    /// Waits for a line of stderr that contains this.
    pub async fn complaint(&self, wanted: &str) {
        self.until(&format!("a line with {wanted:?} on stderr"), |log| {
            log.stderr.iter().any(|line| line.contains(wanted))
        })
        .await;
    }

    /// Waits until what it has printed satisfies a condition.
    pub async fn printed(&self, what: &str, mut condition: impl FnMut(&str) -> bool) -> String {
        self.until(what, |log| condition(&log.stdout.join("\n"))).await;
        self.stdout()
    }

    /// Waits until it has ended; the exit code, or minus the signal that killed it.
    pub async fn exited(&mut self) -> i32 {
        self.until("its end", |log| log.exit.is_some() && log.open_streams == 0).await;
        self.exit_code().expect("it has just ended")
    }

    /// The exit code, if it has ended.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        let status = self.log.borrow().exit?;
        status.code().or_else(|| status.signal().map(|signal| -signal))
    }

    /// Sends a signal; to one that has ended, none.
    pub fn signal(&self, signal: Signal) {
        let log = self.log.borrow();
        if log.exit.is_none() {
            kill_process(self.pid, signal)
                .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
        }
    }

    /// Lets its files grow from now on, as if room had been made on its disk: the end of
    /// [`Program::with_file_size`].
    pub fn lift_file_size(&self) {
        let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
        let lifted = Rlimit { current: maximum, maximum };
        prlimit(Some(self.pid), Resource::Fsize, lifted).expect("a child's limits can be changed");
    }

    /// Kills it and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exited().await;
    }

    /// Closes its standard input, as the end of its parent would.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// All that it printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.log.borrow().stdout.join("\n")
    }

    /// All that it said on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.log.borrow().stderr.join("\n")
    }

    /// The warnings and errors in its log, but for those that contain one of `expected`.
    #[must_use]
    pub fn complaints(&self, expected: &[&str]) -> Vec<String> {
        let log = self.log.borrow();
        let bad = log.stderr.iter().filter(|line| {
            line.split_whitespace().take(4).any(|word| matches!(word, "WARN" | "ERROR"))
        });
        bad.filter(|line| !expected.iter().any(|text| line.contains(text))).cloned().collect()
    }

    /// A figure of `/proc/PID/status` in kilobytes, such as `VmHWM`.
    #[must_use]
    pub fn status_kb(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("{path} has no {field}"))
    }

    /// The processor time that it has used so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.id());
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
        // The name is in parentheses and may contain anything; two fields in user and
        // system mode, in ticks.
        let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
        let ticks = fields.into_iter().flatten().skip(11).take(2);
        let ticks = ticks.map(|field| field.parse::<u64>().expect("a number"));
        Duration::from_secs_f64(ticks.sum::<u64>() as f64 / clock_ticks_per_second() as f64)
    }

    async fn until(&self, what: &str, condition: impl FnMut(&Log) -> bool) {
        let mut condition = condition;
        let mut receiver = self.log.subscribe();
        let found = timeout(PATIENCE, async {
            // The second alternative cannot come true any more once everything is said.
            let over = |log: &Log| log.exit.is_some() && log.open_streams == 0;
            let log = receiver.wait_for(|log| condition(log) || over(log)).await;
            log.is_ok_and(|log| condition(&log))
        })
        .await;
        match found {
            Ok(true) => {}
            Ok(false) => {
                panic!("{} ended ({:?}) before {what}", self.name, self.exit_code())
            }
            Err(_) => panic!("{}: {what} did not come within {PATIENCE:?}", self.name),
        }
    }

    fn tail(&self) -> String {
        let log = self.log.borrow();
        let mut text = format!("---- {} (exit {:?})\n", self.name, log.exit);
        for (stream, lines) in [("stdout", &log.stdout), ("stderr", &log.stderr)] {
            for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                writeln!(text, "{stream}: {line}").expect("writing to a string cannot fail");
            }
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        {
            let log = self.log.borrow();
            if log.exit.is_none() {
                // Gone already is as good.
                kill_process(self.pid, Signal::KILL).ok();
            }
        }
        self.stdin = None;
        // A grandchild may still hold the pipes, so only the reaper is waited for.
        if let Some(reaper) = self.threads.pop() {
            reaper.join().ok();
        }
        if thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

impl Listening {
    /// The address under a name.
    #[must_use]
    pub fn address(&self, name: &str) -> SocketAddr {
        let text = self.text(name);
        text.parse().unwrap_or_else(|_| panic!("{name} is no address in {:?}", self.0))
    }

    /// The text under a name.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }
}

impl Finished {
    /// Checks the exit code.
    #[track_caller]
    #[must_use]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Reads what was printed as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.stdout))
    }
}

fn read_lines(
    stream: impl Read + Send + 'static,
    log: watch::Sender<Log>,
    lines: fn(&mut Log) -> &mut Vec<String>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            log.send_modify(|log| lines(log).push(text));
            line.clear();
        }
        log.send_modify(|log| log.open_streams -= 1);
    })
}
