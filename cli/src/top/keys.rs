//! What each key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    action::Action,
    pane::Pane,
    state::{Over, Sort, State},
};

/// Lines that a page key moves over.
const PAGE: isize = 10;
/// Columns of text that an arrow to the side moves over.
const SIDE: u16 = 8;

/// The keys, for the help.
pub(super) const HELP: &str = "\
1-5, Tab    another pane
up, down    choose a line (j, k; PgUp, PgDn, Home, End)
left, right more columns
Enter       all about the line; Esc goes back
/           only lines that contain a text; Esc forgets it
s, S        sort by the next column; the other way round
d e x       drain, enable, disable the backend (asks first)
+ -         its weight, one more or less (asks first)
p           hold the picture still, and go on
?           this help
q, Ctrl-C   quit";

/// What is to be done outside of the state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    /// Nothing but to draw.
    Nothing,
    /// To end.
    Quit,
    /// To end, as if interrupted.
    Interrupt,
    /// To change something.
    Change(Action),
}

impl State {
    /// A key was pressed.
    pub(super) fn pressed(&mut self, key: KeyEvent) -> Effect {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Effect::Interrupt,
                _ => Effect::Nothing,
            };
        }
        match self.over.clone() {
            Over::Filter => self.type_filter(key.code),
            Over::Question(action) => {
                self.over = Over::Nothing;
                if matches!(key.code, KeyCode::Char('y') | KeyCode::Enter) {
                    self.notice = Some(format!("{} ...", action.command()));
                    return Effect::Change(action);
                }
                self.notice = Some("nothing was changed".to_owned());
            }
            Over::Help => self.over = Over::Nothing,
            Over::Detail { .. } if matches!(key.code, KeyCode::Esc | KeyCode::Enter) => {
                self.over = Over::Nothing;
            }
            Over::Nothing | Over::Detail { .. } => return self.command_key(key.code),
        }
        Effect::Nothing
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.over = Over::Nothing,
            KeyCode::Esc => {
                self.filter.clear();
                self.over = Over::Nothing;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.keep_in_bounds();
    }

    fn command_key(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char(digit @ '1'..='5') => {
                let index = digit as usize - '1' as usize;
                self.over = Over::Nothing;
                self.show(Pane::ALL[index]);
            }
            KeyCode::Tab => {
                self.over = Over::Nothing;
                self.show(self.pane.next());
            }
            KeyCode::Char('?') => self.over = Over::Help,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('/') => self.over = Over::Filter,
            KeyCode::Char('s') => self.sort_by_next(),
            KeyCode::Char('S') => {
                let sort = self.sort.unwrap_or(Sort { column: 0, descending: false });
                self.sort = Some(Sort { descending: !sort.descending, ..sort });
            }
            KeyCode::Char(key @ ('d' | 'e' | 'x' | '+' | '-')) => self.ask(key),
            KeyCode::Enter => {
                if let (Some(kind), Some(name)) = (self.pane.kind(), self.chosen()) {
                    self.scroll = 0;
                    self.over = Over::Detail { kind, name };
                }
            }
            KeyCode::Esc => {
                self.filter.clear();
                self.notice = None;
            }
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-PAGE),
            KeyCode::PageDown => self.move_by(PAGE),
            KeyCode::Home => *self.position() = 0,
            KeyCode::End => *self.position() = usize::MAX,
            KeyCode::Left => self.shift = self.shift.saturating_sub(SIDE),
            KeyCode::Right => self.shift = self.shift.saturating_add(SIDE),
            _ => {}
        }
        self.keep_in_bounds();
        Effect::Nothing
    }

    fn move_by(&mut self, lines: isize) {
        let position = self.position();
        *position = position.saturating_add_signed(lines);
    }

    fn sort_by_next(&mut self) {
        let Some(table) = self.sample.as_ref().and_then(|sample| self.table(sample.at_unix_ms))
        else {
            return;
        };
        let column = self.sort.map_or(0, |sort| (sort.column + 1) % table.headers().len().max(1));
        self.sort = Some(Sort { column, descending: false });
    }

    fn ask(&mut self, key: char) {
        if self.read_only {
            self.notice = Some("read-only: start without --read-only to change things".to_owned());
            return;
        }
        // In its detail it is the same backend, wherever its line is by now.
        let id = match &self.over {
            Over::Detail { kind: "backend", name } => Some(name.clone()),
            _ if self.pane == Pane::Backends => self.chosen(),
            _ => None,
        };
        let Some(sample) = &self.sample else { return };
        let backend = sample.backends.iter().find(|backend| Some(&backend.id) == id.as_ref());
        let Some(backend) = backend else {
            self.notice = Some("choose a backend in pane 3 first".to_owned());
            return;
        };
        match Action::of_key(key, backend, &sample.backends) {
            Some(action) => self.over = Over::Question(action),
            None => self.notice = Some(format!("backend {}: nothing to change", backend.id)),
        }
    }
}
