//! `top`: the fleet on a screen that keeps itself up to date.
//!
//! What is shown and what keys do is decided in `state` and `keys`, drawn by `render`, and all
//! of that without I/O; here are the questions to the control plane, the terminal, and the
//! changes that were said yes to.

mod action;
mod keys;
mod pane;
mod render;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

use std::{env, process::ExitCode, time::Duration};

use lb_proto::v1 as pb;
use ratatui::{Terminal as Frames, backend::TestBackend, buffer::Buffer, crossterm::event::Event};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

pub(crate) use self::pane::Pane;
use self::{
    action::Action,
    keys::Effect,
    render::{Look, draw},
    state::{Sample, State},
    terminal::Terminal,
};
use crate::{
    args::{Global, Top},
    client::Client,
    clock,
    command::{self, EventView, Session},
    exit::{Exit, Failure},
    output::{self, Screen},
};

/// Past events that the pane of events begins with.
const PAST_EVENTS: u32 = 50;

/// Before events are followed again, when their stream ended.
const RECONNECT: Duration = Duration::from_secs(1);

/// How often the picture is drawn when nothing happens, so that ages go on.
const REDRAW: Duration = Duration::from_secs(1);

/// What is told to the screen.
#[derive(Debug)]
enum News {
    Sample(Box<Result<Sample, Failure>>),
    Event(EventView),
    /// A change ended so.
    Changed(String),
}

/// Shows the screen until it is quit, or prints snapshots of it.
pub(crate) fn run(args: &Top, global: &Global) -> Result<ExitCode, Failure> {
    let (args, global) = (args.clone(), global.clone());
    command::block_on(command::until_interrupted(async move {
        // Whoever has no terminal should not have to wait for a control plane to hear it.
        let terminal = match args.snapshot {
            None => Some(Terminal::take_over()?),
            Some(_) => None,
        };
        let timeout = global.timeout.unwrap_or(command::TIMEOUT);
        let client = Client::connect(&global.server, timeout).await?;
        let session = Session { client, screen: Screen::plain() };
        let state = State::new(session.client.server(), args.pane, args.read_only);
        let (sender, news) = mpsc::channel(64);
        tokio::spawn(ask(session.clone(), args.interval, sender.clone()));
        tokio::spawn(follow(session.clone(), sender.clone()));
        match terminal {
            Some(terminal) => show(terminal, state, &session, news, &sender).await,
            None => print(state, args.snapshot.unwrap_or(1), args.interval, news).await,
        }
    }))
}

/// Asks for the fleet again and again.
async fn ask(session: Session, period: Duration, news: mpsc::Sender<News>) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = command::read_status(&session).await;
        let at_unix_ms = clock::unix_ms();
        let sample = answer.map(|(status, backends)| Sample { status, backends, at_unix_ms });
        if news.send(News::Sample(Box::new(sample))).await.is_err() {
            return;
        }
    }
}

/// Follows events, again when their stream ended.
async fn follow(session: Session, news: mpsc::Sender<News>) {
    let client = &session.client;
    loop {
        let request = pb::WatchRequest { past: PAST_EVENTS, ..Default::default() };
        if let Ok(mut events) = client.call(client.fleet().watch(request)).await {
            while let Ok(Some(event)) = events.message().await {
                if news.send(News::Event(event.into())).await.is_err() {
                    return;
                }
            }
        }
        sleep(RECONNECT).await;
    }
}

async fn show(
    mut terminal: Terminal,
    mut state: State,
    session: &Session,
    mut news: mpsc::Receiver<News>,
    sender: &mpsc::Sender<News>,
) -> Result<(), Failure> {
    let look = Look { colors: output::colors_wanted(), unicode: output::speaks_unicode() };
    let mut events = terminal::events();
    let mut redraw = interval(REDRAW);
    loop {
        terminal.screen.draw(|frame| draw(frame, &state, look, clock::unix_ms()))?;
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Key(key)) => match state.pressed(key) {
                    Effect::Nothing => {}
                    Effect::Quit => return Ok(()),
                    Effect::Interrupt => return Err(Failure::new(Exit::Interrupted, "")),
                    Effect::Change(action) => {
                        tokio::spawn(change(session.clone(), action, sender.clone()));
                    }
                },
                // The next frame has the new size.
                Some(_) => {}
                // The terminal is gone.
                None => return Ok(()),
            },
            Some(told) = news.recv() => apply(&mut state, told),
            _ = redraw.tick() => {}
        }
    }
}

async fn change(session: Session, action: Action, news: mpsc::Sender<News>) {
    let ended = match command::change_backend(&session, &action.backend, action.change).await {
        Ok(summary) => format!("{}: {summary}", action.difference),
        // One line is all there is.
        Err(failure) => format!("error: {}", failure.message.replace('\n', "; ")),
    };
    // Whoever has quit meanwhile does not read it.
    news.send(News::Changed(ended)).await.ok();
}

fn apply(state: &mut State, told: News) {
    match told {
        News::Sample(answer) => match *answer {
            Ok(sample) => state.heard(sample),
            Err(failure) => state.missed(&failure.message, clock::unix_ms()),
        },
        News::Event(event) => state.happened(event),
        News::Changed(how) => state.notice = Some(how),
    }
}

/// Prints frames as plain text, one after each answer of the control plane.
async fn print(
    mut state: State,
    frames: u32,
    period: Duration,
    mut news: mpsc::Receiver<News>,
) -> Result<(), Failure> {
    let look = Look { colors: false, unicode: output::speaks_unicode() };
    let size = (columns("COLUMNS", 80), columns("LINES", 24));
    let mut printed = 0;
    while printed < frames {
        let Some(told) = news.recv().await else { return Ok(()) };
        // Events that are told with the first answer belong to its frame.
        let News::Sample(answer) = told else {
            apply(&mut state, told);
            continue;
        };
        state.heard((*answer)?);
        while let Ok(Some(told)) = tokio::time::timeout(SETTLE.min(period), news.recv()).await
            && !matches!(told, News::Sample(_))
        {
            apply(&mut state, told);
        }
        output::print(&frame_text(&state, look, size, clock::unix_ms()))?;
        printed += 1;
    }
    Ok(())
}

/// How long events that are on their way are waited for.
const SETTLE: Duration = Duration::from_millis(100);

/// A side of the terminal that a variable tells, or that of the usual one.
fn columns(variable: &str, usual: u16) -> u16 {
    let told = env::var(variable).ok().and_then(|text| text.parse().ok());
    told.filter(|side| (1..=1000).contains(side)).unwrap_or(usual)
}

/// One frame, without the spaces at the ends of its lines.
fn frame_text(state: &State, look: Look, (width, height): (u16, u16), now: u64) -> String {
    let Ok(mut frames) = Frames::new(TestBackend::new(width, height));
    let Ok(_) = frames.draw(|frame| draw(frame, state, look, now));
    text_of(frames.backend().buffer())
}

fn text_of(buffer: &Buffer) -> String {
    let rows = buffer.content().chunks(usize::from(buffer.area.width).max(1));
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}
