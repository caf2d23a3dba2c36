//! Columns of text.
//!
//! Plain columns with two spaces between them: they can be read, cut and sorted, and
//! no terminal is too narrow for them to be pasted into a ticket.

/// Rows under a header.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
}

/// One field of a table. Numbers are set to the right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// How a field is coloured on terminals.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Tone {
    /// Not at all.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Warning,
    /// Broken.
    Bad,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(headers: &[&'static str]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new(), indent: 0 }
    }

    /// Sets every line in by this many spaces.
    pub(crate) fn indented(mut self, spaces: usize) -> Self {
        self.indent = spaces;
        self
    }

    /// Adds a row with one cell per header.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.headers.len(), "one cell per header");
        self.rows.push(cells);
    }

    /// The whole table, one line feed behind each line.
    pub(crate) fn render(&self, colors: bool) -> String {
        let widths: Vec<usize> = (0..self.headers.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].width());
                cells.max().unwrap_or(0).max(self.headers[column].len())
            })
            .collect();
        let right: Vec<bool> = (0..self.headers.len())
            .map(|column| {
                !self.rows.is_empty() && self.rows.iter().all(|row| row[column].is_number())
            })
            .collect();
        let headers: Vec<Cell> = self.headers.iter().map(|header| Cell::from(*header)).collect();
        let mut text = String::new();
        for row in std::iter::once(&headers).chain(&self.rows) {
            let mut line = " ".repeat(self.indent);
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.width());
                let gap = if column == 0 { "" } else { "  " };
                let cell = cell.paint(colors);
                line += gap;
                line += &if right[column] { padding + &cell } else { cell + &padding };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

impl Cell {
    /// A coloured field.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: printable(text.into()), tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// Begins with a digit, or stands for a missing number.
    fn is_number(&self) -> bool {
        self.text == "-"
            || (self.text.starts_with(|c: char| c.is_ascii_digit()) && !self.text.contains(':'))
    }

    pub(super) fn paint(&self, colors: bool) -> String {
        let code = match self.tone {
            Tone::Good if colors => "32",
            Tone::Warning if colors => "33",
            Tone::Bad if colors => "31",
            Tone::Plain | Tone::Good | Tone::Warning | Tone::Bad => return self.text.clone(),
        };
        format!("\x1b[{code}m{}\x1b[0m", self.text)
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text.to_string(), Tone::Plain)
    }
}

/// Text of backends and proxies must not steer the terminal.
fn printable(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, "?") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(&["ID", "STATE", "REQUESTS"]);
        table.row(["backend1".into(), Cell::toned("up", Tone::Good), 12.into()]);
        table.row(["b2".into(), Cell::toned("down", Tone::Bad), "-".into()]);
        table
    }

    #[test]
    fn words_are_set_left_and_numbers_right() {
        insta::assert_snapshot!(example().render(false), @r"
        ID        STATE  REQUESTS
        backend1  up           12
        b2        down          -
        ");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let painted = example().render(true);
        assert!(painted.contains("\x1b[31mdown\x1b[0m"));
        let plain = painted.replace("\x1b[31m", "").replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain, example().render(false));
    }

    #[test]
    fn strange_text_does_not_steer_the_terminal() {
        assert_eq!(Cell::from("a\x1b[2Jb\n").text, "a?[2Jb?");
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(Table::new(&["ID", "STATE"]).render(false), "ID  STATE\n");
    }
}
