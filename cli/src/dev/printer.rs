//! One writer for everything that the children say.
//!
//! A thread writes, so that a terminal that is stopped (Ctrl-S) or slow never holds up
//! the supervision; the queue is bounded, and a full one slows the talkative child
//! down, not us.

use std::{
    io::{self, Write},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    sync::{mpsc, watch},
};

/// Lines that wait to be written.
const QUEUE_MAX: usize = 1000;

/// A longer line of a child is broken.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// As wide as the longest usual name, so that lines begin below each other.
const NAME_WIDTH: usize = 13;

/// Where a line goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stream {
    /// Answers and access logs.
    Out,
    /// Logs.
    Err,
}

/// Writes lines about errors only; each write is one line.
struct Errors<W>(W);

impl<W: Write> Write for Errors<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let tells = |word: &[u8]| line.windows(word.len()).any(|part| part == word);
        if tells(b"ERROR") || tells(b"error:") {
            self.0.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A handle of the writer; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Printer {
    lines: mpsc::Sender<(Stream, String)>,
    ended: watch::Receiver<bool>,
}

impl Printer {
    /// Starts the writing thread.
    pub(super) fn start() -> Self {
        Self::writing_to(io::stdout(), io::stderr())
    }

    /// Passes on what children complain about, and nothing else.
    pub(super) fn of_errors() -> Self {
        Self::writing_to(io::sink(), Errors(io::stderr()))
    }

    fn writing_to(
        mut out: impl Write + Send + 'static,
        mut err: impl Write + Send + 'static,
    ) -> Self {
        let (lines, mut queue) = mpsc::channel::<(Stream, String)>(QUEUE_MAX);
        let (end, ended) = watch::channel(false);
        std::thread::spawn(move || {
            while let Some((stream, text)) = queue.blocking_recv() {
                let written = match stream {
                    Stream::Out => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
                    Stream::Err => err.write_all(text.as_bytes()),
                };
                // Whoever read our answers has gone; logs may go unread.
                if written.is_err() && stream == Stream::Out {
                    break;
                }
            }
            end.send_replace(true);
        });
        Self { lines, ended }
    }

    /// Says something in the name of `dev` itself, on stderr.
    pub(super) fn line(&self, text: &str) {
        self.queue(Stream::Err, format!("{:<NAME_WIDTH$} | {text}\n", "dev"));
    }

    /// Prints text as it is, on stdout.
    pub(super) fn block(&self, text: &str) {
        self.queue(Stream::Out, text.to_owned());
    }

    /// Our own few lines never wait; a queue that full is not being read.
    fn queue(&self, stream: Stream, text: String) {
        drop(self.lines.try_send((stream, text)));
    }

    /// Passes a child's lines on until it closes its end; `see` is shown each line.
    pub(super) async fn pass_on(
        self,
        name: String,
        stream: Stream,
        input: impl AsyncRead + Unpin,
        mut see: impl FnMut(&str),
    ) {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            see(text);
            // Without a writer, the child must still not be held up by a full pipe.
            drop(self.lines.send((stream, format!("{name:<NAME_WIDTH$} | {text}\n"))).await);
        }
    }

    /// Completes when nobody reads our stdout any more.
    pub(super) async fn reader_gone(&self) {
        let mut ended = self.ended.clone();
        // A thread that is gone without a word is gone, too.
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// Writes what is left, unless the terminal is stopped.
    pub(super) async fn finish(self) {
        let Self { lines, mut ended } = self;
        drop(lines);
        drop(
            tokio::time::timeout(Duration::from_millis(500), ended.wait_for(|ended| *ended)).await,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_carry_the_name_of_the_child() {
        let (out, err) = (Shared::default(), Shared::default());
        let printer = Printer::writing_to(out.clone(), err.clone());
        let mut seen = Vec::new();
        printer
            .clone()
            .pass_on("proxy-1".to_owned(), Stream::Out, &b"one\ntwo\r\nrest"[..], |line| {
                seen.push(line.to_owned());
            })
            .await;
        printer.line("stopping");
        printer.finish().await;
        assert_eq!(seen, ["one", "two", "rest"]);
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "proxy-1       | one\nproxy-1       | two\nproxy-1       | rest\n");
        let text = String::from_utf8(err.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "dev           | stopping\n");
    }

    #[tokio::test]
    async fn a_reader_that_has_seen_enough_is_noticed_and_children_are_not_held_up() {
        let printer = Printer::writing_to(Closed, Shared::default());
        printer.block("ready\n");
        printer.reader_gone().await;
        let many = "line\n".repeat(2 * QUEUE_MAX);
        printer.pass_on("a".to_owned(), Stream::Out, many.as_bytes(), |_| {}).await;
    }
}
