//! The terminal: taken over while the screen is shown, and given back however that ends.

use std::{
    io::{self, IsTerminal as _},
    thread,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::sync::mpsc;

use crate::exit::{Exit, Failure};

/// A terminal in raw mode with the screen of this program.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) screen: DefaultTerminal,
}

impl Terminal {
    /// Takes it over; a panic gives it back before its message is printed.
    pub(super) fn take_over() -> Result<Self, Failure> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(Failure::new(
                Exit::Usage,
                "lbctl top needs a terminal, and stdin or stdout is none; print frames as text with \
                 'lbctl top --snapshot 1', or use 'lbctl status'",
            ));
        }
        let screen = ratatui::try_init().map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot take over the terminal: {error}"))
        })?;
        Ok(Self { screen })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // After a panic it was given back before the message: once more would put the cursor back,
        // and what follows over the message.
        if !thread::panicking() {
            ratatui::restore();
        }
    }
}

/// Keys and resizes from now on. They are read by a thread, since reading a terminal cannot be
/// cancelled; it dies with the process.
pub(super) fn events() -> mpsc::UnboundedReceiver<Event> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            // Some terminals tell of keys that are let go, too.
            let released = matches!(&event, Event::Key(key) if key.kind == KeyEventKind::Release);
            if !released && sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
