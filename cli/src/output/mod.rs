//! What is printed, and how.
//!
//! Answers go to stdout as one piece, so that a reader that stops early costs nothing
//! but its own curiosity. Colours are for terminals only, repeat what the words say
//! already, and yield to `NO_COLOR`.

mod table;
mod yaml;

use std::{
    env,
    future::pending,
    io::{self, IsTerminal as _, Write as _},
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use serde::Serialize;
use tokio::sync::oneshot;

pub(crate) use self::table::{Cell, Piece, Table, Tone};
use crate::{args::OutputFormat, exit::Failure};

/// Where and how answers are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    format: OutputFormat,
    colors: bool,
}

impl Screen {
    /// Stdout, with colours when it is a terminal and nobody minds.
    pub(crate) fn new(format: OutputFormat) -> Self {
        Self { format, colors: io::stdout().is_terminal() && colors_wanted() }
    }

    /// For text that is shown by something else than the terminal itself.
    pub(crate) fn plain() -> Self {
        Self { format: OutputFormat::Table, colors: false }
    }

    /// The chosen format.
    pub(crate) fn format(&self) -> OutputFormat {
        self.format
    }

    /// Whether people read it, and not programs.
    pub(crate) fn is_for_people(&self) -> bool {
        matches!(self.format, OutputFormat::Table | OutputFormat::Wide)
    }

    /// Whether more columns are wanted.
    pub(crate) fn is_wide(&self) -> bool {
        self.format == OutputFormat::Wide
    }

    /// Colours a piece of text, on terminals.
    pub(crate) fn paint(&self, cell: &Cell) -> String {
        cell.paint(self.colors)
    }

    /// Lays a table out.
    pub(crate) fn render(&self, table: &Table) -> String {
        table.render(self.colors)
    }

    /// Prints an answer in the chosen format: `table` for people, `names` for scripts.
    pub(crate) fn answer<T: Serialize>(
        &self,
        value: &T,
        names: impl FnOnce() -> Vec<String>,
        table: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = match self.format {
            // Files are written by their own command.
            OutputFormat::Table | OutputFormat::Wide | OutputFormat::Toml => table(),
            OutputFormat::Json => to_json(value),
            OutputFormat::Yaml => to_yaml(value),
            OutputFormat::Name => names().join("\n"),
        };
        // An empty list of names is no line, not an empty one.
        if text.is_empty() { Ok(()) } else { print(&text) }
    }

    /// Prints one item of an endless list; `line` for people.
    pub(crate) fn item<T: Serialize>(
        &self,
        value: &T,
        line: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            OutputFormat::Json => {
                let json = serde_json::to_string(value);
                print(&json.expect("maps have text keys and numbers are finite or null"))
            }
            OutputFormat::Yaml => print(&format!("---\n{}", to_yaml(value))),
            OutputFormat::Table | OutputFormat::Wide | OutputFormat::Name | OutputFormat::Toml => {
                print(&line())
            }
        }
    }
}

/// Whether nobody minds colours, on a terminal that has them.
pub(crate) fn colors_wanted() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether more than ASCII can be shown, as the locale says, by the rule of its variables: the
/// first that is set counts.
pub(crate) fn speaks_unicode() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        .is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
}

/// Prints text to stdout; it ends with a line feed already or gets one.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()?;
    Ok(())
}

/// Completes when nobody reads stdout any more, as `head` does not after its lines: who only prints
/// now and then would not notice. Never, where that cannot be told.
pub(crate) async fn reader_is_gone() {
    let (told, gone) = oneshot::channel();
    // Of its own, as nobody waits for it at the end.
    let watcher = thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        let stdout = io::stdout();
        // No event is asked for: errors and hang-ups are told without.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        let mut answer = poll(&mut watched, None);
        while answer == Err(Errno::INTR) {
            answer = poll(&mut watched, None);
        }
        if answer.is_ok() {
            told.send(()).ok();
        }
    });
    if watcher.is_err() || gone.await.is_err() {
        pending().await
    }
}

/// Tells people something that is no answer, on stderr.
pub(crate) fn note(text: &str) {
    // Nobody is there to be told when stderr is gone.
    drop(writeln!(io::stderr(), "{text}"));
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("maps have text keys and numbers are finite or null")
}

fn to_yaml<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value);
    yaml::render(&value.expect("maps have text keys and numbers are finite or null"))
}
