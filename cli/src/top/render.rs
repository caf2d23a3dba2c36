//! Draws the state. No I/O and no clock.
//!
//! ```text
//! lbctl top  http://127.0.0.1:9400              0s ago
//!  1 Overview  2 Pools  3 Backends  4 Proxies  5 Events
//! (lines, or text)
//! = lbctl get backends
//! ? help  q quit
//! ```
//!
//! Whatever does not fit is cut off, at any size. Colours repeat what the words say.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Wrap},
};

use super::{
    keys::HELP,
    pane::Pane,
    state::{Over, State},
};
use crate::{
    format,
    output::{Piece, Tone},
};

/// What the terminal can show, and may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) colors: bool,
    pub(super) unicode: bool,
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, look: Look, now: u64) {
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(1),
    ]);
    let [title, tabs, body, command, foot] = rows.areas(frame.area());
    frame.render_widget(headline(state, look, now), title);
    frame.render_widget(pane_line(state), tabs);
    draw_body(frame, state, look, now, body);
    frame.render_widget(Line::raw(format!("= {}", state.command())), command);
    frame.render_widget(foot_line(state, look), foot);
    match &state.over {
        Over::Help => popup(frame, look, "keys", HELP),
        Over::Question(action) => {
            let mut text = format!("{}\n", action.difference);
            if let Some(warning) = &action.warning {
                text += &format!("! {warning}\n");
            }
            text += &format!("= {}\n\nDo it?  y: yes, any other key: no", action.command());
            popup(frame, look, "change", &text);
        }
        Over::Nothing | Over::Detail { .. } | Over::Filter => {}
    }
}

fn headline<'s>(state: &'s State, look: Look, now: u64) -> Line<'s> {
    let mut spans = vec![Span::styled("lbctl top", Style::new().add_modifier(Modifier::BOLD))];
    if let Some(away) = &state.away {
        let since = format::age_of(Some(away.since_unix_ms), now);
        let text = format!("  CONTROL PLANE AWAY for {since}: {}", away.why);
        spans.push(Span::styled(text, style(Tone::Bad, look)));
    }
    let as_of = match &state.sample {
        Some(sample) => format!("  {} ago", format::age_of(Some(sample.at_unix_ms), now)),
        None => "  waiting for the control plane".to_owned(),
    };
    spans.push(Span::raw(as_of));
    if state.paused {
        spans.push(Span::styled("  PAUSED", style(Tone::Warning, look)));
    }
    if state.read_only {
        spans.push(Span::raw("  read-only"));
    }
    spans.push(Span::raw(format!("  {}", state.server)));
    Line::from(spans)
}

fn pane_line(state: &State) -> Line<'static> {
    let tabs = Pane::ALL.iter().enumerate().map(|(index, pane)| {
        let chosen = *pane == state.pane;
        let style = if chosen { Modifier::REVERSED } else { Modifier::empty() };
        let text = format!(" {} {} ", index + 1, pane.title());
        Span::styled(text, Style::new().add_modifier(style))
    });
    Line::from(tabs.collect::<Vec<_>>())
}

fn draw_body(frame: &mut Frame<'_>, state: &State, look: Look, now: u64, area: Rect) {
    if let Some(text) = state.text(now) {
        let mut lines: Vec<Line<'_>> = Vec::new();
        if !matches!(state.over, Over::Detail { .. }) {
            let width = usize::from(area.width).saturating_sub(9);
            lines.push(Line::raw(format!("REQ/S    {}", spark(&state.rates, width, look.unicode))));
        }
        lines.extend(text.lines().skip(state.scroll).map(|line| {
            let tone = if line.starts_with("! ") { Tone::Bad } else { Tone::Plain };
            Line::styled(line.to_owned(), style(tone, look))
        }));
        frame.render_widget(Paragraph::new(lines).scroll((0, state.shift)), area);
        return;
    }
    let Some(table) = state.table(now) else { return };
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let mut lines = table.lines().into_iter().map(|line| pieces(line, look));
    let header = lines.next().unwrap_or_default().style(Modifier::BOLD);
    frame.render_widget(Paragraph::new(header).scroll((0, state.shift)), head);
    let height = usize::from(body.height);
    // The chosen line is always shown.
    let first = (state.cursor + 1).saturating_sub(height);
    let chosen = state.pane.kind().map(|_| state.cursor);
    let rows =
        lines.enumerate().skip(first).take(height).map(|(row, line)| {
            if chosen == Some(row) { line.style(Modifier::REVERSED) } else { line }
        });
    let rows: Vec<Line<'_>> = rows.collect();
    if rows.is_empty() {
        let why =
            if state.filter.is_empty() { "nothing yet" } else { "nothing matches the filter" };
        frame.render_widget(Line::raw(why), body);
        return;
    }
    frame.render_widget(Paragraph::new(rows).scroll((0, state.shift)), body);
}

fn pieces(line: Vec<Piece>, look: Look) -> Line<'static> {
    let spans = line.into_iter().flat_map(|Piece { before, cell, after }| {
        let text = Span::styled(cell.text().to_owned(), style(cell.tone(), look));
        [Span::raw(before), text, Span::raw(after)]
    });
    Line::from(spans.collect::<Vec<_>>())
}

fn foot_line(state: &State, look: Look) -> Line<'static> {
    if state.over == Over::Filter {
        return Line::raw(format!("/{}_   Enter keeps it, Esc forgets it", state.filter));
    }
    if let Some(notice) = &state.notice {
        return Line::styled(notice.clone(), style(Tone::Warning, look));
    }
    let mut text = "? help  q quit".to_owned();
    if !state.filter.is_empty() {
        text += &format!("  filter /{}", state.filter);
    }
    let table = state.sample.as_ref().and_then(|sample| state.table(sample.at_unix_ms));
    if let (Some(sort), Some(table)) = (state.sort, table) {
        let way = if sort.descending { "down" } else { "up" };
        text += &format!("  sorted by {} {way}", table.headers()[sort.column]);
    }
    Line::raw(text)
}

/// A framed text in the middle, as large as it needs and the screen has.
fn popup(frame: &mut Frame<'_>, look: Look, title: &str, text: &str) {
    let whole = frame.area();
    let longest = text.lines().chain([title]).map(|line| line.chars().count()).max().unwrap_or(0);
    let room = usize::from(whole.width.saturating_sub(2).max(1));
    // Lines that are too long are wrapped.
    let lines = text.lines().map(|line| line.chars().count().div_ceil(room).max(1)).sum::<usize>();
    let side = |inner: usize, outer: u16| u16::try_from(inner + 2).unwrap_or(outer).min(outer);
    let (width, height) = (side(longest, whole.width), side(lines, whole.height));
    let area = Rect {
        x: whole.x + (whole.width - width) / 2,
        y: whole.y + (whole.height - height) / 2,
        width,
        height,
    };
    let mut block = Block::bordered().title(format!(" {title} "));
    if !look.unicode {
        block = block.border_set(ASCII_BORDER);
    }
    frame.render_widget(Clear, area);
    frame.render_widget(
        Paragraph::new(text.to_owned()).wrap(Wrap { trim: false }).block(block),
        area,
    );
}

/// The last values as bars, the highest full.
fn spark<'v>(
    values: impl IntoIterator<Item = &'v f64, IntoIter: DoubleEndedIterator>,
    width: usize,
    unicode: bool,
) -> String {
    let bars: &[char] = if unicode {
        &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        &[' ', '_', '.', ':', '-', '=', '+', '*', '#']
    };
    let mut shown: Vec<f64> = values.into_iter().rev().take(width).copied().collect();
    shown.reverse();
    let most = shown.iter().copied().fold(0.0, f64::max);
    let top = (bars.len() - 1) as f64;
    let bar = |value: f64| {
        // Some is not none: the lowest bar is drawn for the least of rates.
        let level = if most > 0.0 { (value / most * top).ceil() } else { 0.0 };
        let index = (0..bars.len()).rev().find(|index| *index as f64 <= level).unwrap_or(0);
        bars[index]
    };
    shown.into_iter().map(bar).collect()
}

fn style(tone: Tone, look: Look) -> Style {
    let color = match tone {
        Tone::Good if look.colors => Color::Green,
        Tone::Warning if look.colors => Color::Yellow,
        Tone::Bad if look.colors => Color::Red,
        Tone::Plain | Tone::Good | Tone::Warning | Tone::Bad => return Style::new(),
    };
    Style::new().fg(color)
}

const ASCII_BORDER: ratatui::symbols::border::Set<'_> = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};
