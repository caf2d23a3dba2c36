//! What the screen shows, and how keys and news change it. No I/O and no clock.

use std::collections::VecDeque;

use super::{
    action::Action,
    pane::{Pane, arrange},
};
use crate::{
    command::{
        EventView, StatusView, describe_backend, describe_pool, describe_proxy, remedy_at_backend,
        status_page,
    },
    output::{Screen, Table},
    view::BackendView,
};

/// Samples of the request rate that are kept: more than any screen is wide.
const RATES_MAX: usize = 400;

/// Events that are kept.
const EVENTS_MAX: usize = 200;

/// The fleet at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) status: StatusView,
    pub(super) backends: Vec<BackendView>,
    pub(super) at_unix_ms: u64,
}

/// By which column the lines are sorted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) descending: bool,
}

/// Why there is no news.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Away {
    pub(super) since_unix_ms: u64,
    pub(super) why: String,
}

/// What lies over the pane.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Over {
    Nothing,
    Help,
    /// All about one line of the pane.
    Detail {
        kind: &'static str,
        name: String,
    },
    /// A change that waits for a yes.
    Question(Action),
    /// A filter that is being typed.
    Filter,
}

/// Everything that is shown.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) server: String,
    pub(super) read_only: bool,
    pub(super) pane: Pane,
    pub(super) over: Over,
    pub(super) filter: String,
    pub(super) sort: Option<Sort>,
    /// The line that is chosen.
    pub(super) cursor: usize,
    /// The first line that is shown, where lines are text and none can be chosen.
    pub(super) scroll: usize,
    /// How many columns of text are left out at the left.
    pub(super) shift: u16,
    pub(super) paused: bool,
    /// How the last change ended.
    pub(super) notice: Option<String>,
    pub(super) sample: Option<Sample>,
    pub(super) away: Option<Away>,
    /// Requests per second, the newest last.
    pub(super) rates: VecDeque<f64>,
    /// The newest first.
    pub(super) events: VecDeque<EventView>,
}

impl State {
    pub(super) fn new(server: &str, pane: Pane, read_only: bool) -> Self {
        Self {
            server: server.to_owned(),
            read_only,
            pane,
            over: Over::Nothing,
            filter: String::new(),
            sort: None,
            cursor: 0,
            scroll: 0,
            shift: 0,
            paused: false,
            notice: None,
            sample: None,
            away: None,
            rates: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The control plane has answered.
    pub(super) fn heard(&mut self, sample: Sample) {
        self.away = None;
        if self.paused {
            return;
        }
        if self.rates.len() == RATES_MAX {
            self.rates.pop_front();
        }
        self.rates.push_back(sample.status.traffic.requests_per_second);
        self.sample = Some(sample);
        self.keep_in_bounds();
    }

    /// The control plane does not answer. What was known stays on the screen.
    pub(super) fn missed(&mut self, why: &str, now: u64) {
        let since_unix_ms = self.away.as_ref().map_or(now, |away| away.since_unix_ms);
        // The remedies of a command that ends are of no use here.
        let why = why.split("; ").next().unwrap_or(why).to_owned();
        self.away = Some(Away { since_unix_ms, why });
    }

    /// Something happened. A stream that is followed anew tells again what is known.
    pub(super) fn happened(&mut self, event: EventView) {
        let known =
            |old: &EventView| (old.sequence, old.at_unix_ms) == (event.sequence, event.at_unix_ms);
        if self.paused || self.events.iter().any(known) {
            return;
        }
        self.events.push_front(event);
        self.events.truncate(EVENTS_MAX);
    }

    /// The lines of the pane as they are shown; none for the overview.
    pub(super) fn table(&self, now: u64) -> Option<Table> {
        let sample = self.sample.as_ref()?;
        let mut table = self.pane.table(sample, self.events.iter(), now)?;
        arrange(&mut table, &self.filter, self.sort);
        Some(table)
    }

    /// The name of the chosen line.
    pub(super) fn chosen(&self) -> Option<String> {
        self.pane.kind()?;
        // Ages do not decide which line it is, unless they are sorted by; then by those of
        // the moment of the sample.
        let table = self.table(self.sample.as_ref()?.at_unix_ms)?;
        Some(table.rows().get(self.cursor)?.first()?.text().to_owned())
    }

    /// The text that is shown instead of lines that can be chosen.
    pub(super) fn text(&self, now: u64) -> Option<String> {
        match (&self.over, &self.sample) {
            (Over::Detail { kind, name }, _) => Some(self.detail(kind, name, now)),
            (_, Some(sample)) if self.pane == Pane::Overview => {
                Some(status_page(&sample.status, now, Screen::plain()))
            }
            _ => None,
        }
    }

    /// All about one thing, or that it is gone.
    fn detail(&self, kind: &str, name: &str, now: u64) -> String {
        let gone = || format!("{kind} {name} is gone");
        let Some(sample) = &self.sample else { return gone() };
        let screen = Screen::plain();
        match kind {
            "backend" => {
                let found = sample.backends.iter().find(|backend| backend.id == name);
                found.map_or_else(gone, |backend| {
                    let mut pools = sample.status.pools.iter();
                    let pool = pools.find(|pool| pool.name == backend.pool);
                    let advice =
                        pool.and_then(|pool| remedy_at_backend(backend, pool, &sample.backends));
                    describe_backend(backend, advice.as_deref(), now, screen)
                })
            }
            "pool" => {
                let found = sample.status.pools.iter().find(|pool| pool.name == name);
                let of_pool = sample.backends.iter().filter(|backend| backend.pool == name);
                let backends: Vec<BackendView> = of_pool.cloned().collect();
                found.map_or_else(gone, |pool| describe_pool(pool, &backends, now, screen))
            }
            _ => {
                let found = sample.status.proxies.iter().find(|proxy| proxy.id == name);
                found.map_or_else(gone, |proxy| describe_proxy(proxy, now))
            }
        }
    }

    /// The command that tells what is shown.
    pub(super) fn command(&self) -> String {
        match &self.over {
            Over::Detail { kind, name } => format!("lbctl describe {kind} {name}"),
            _ => self.pane.command().to_owned(),
        }
    }

    pub(super) fn show(&mut self, pane: Pane) {
        if self.pane != pane {
            self.pane = pane;
            self.cursor = 0;
            self.scroll = 0;
            self.shift = 0;
            // A column of one pane is another one of the next.
            self.sort = None;
        }
    }

    /// What is moved up and down.
    pub(super) fn position(&mut self) -> &mut usize {
        let is_text = self.pane == Pane::Overview || matches!(self.over, Over::Detail { .. });
        if is_text { &mut self.scroll } else { &mut self.cursor }
    }

    /// What is chosen, and what is shown first, are lines that there are.
    pub(super) fn keep_in_bounds(&mut self) {
        let Some(sample) = &self.sample else { return };
        let now = sample.at_unix_ms;
        let lines = self.text(now).map_or(0, |text| text.lines().count());
        self.scroll = self.scroll.min(lines.saturating_sub(1));
        if let Some(table) = self.table(now) {
            self.cursor = self.cursor.min(table.rows().len().saturating_sub(1));
        }
    }
}
