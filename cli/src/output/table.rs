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

/// A field with the spaces that put it into its column.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) before: String,
    pub(crate) cell: Cell,
    pub(crate) after: String,
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

    /// The names of the columns.
    pub(crate) fn headers(&self) -> &[&'static str] {
        &self.headers
    }

    /// The rows, in order.
    pub(crate) fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// Keeps some of the rows, in the order of their numbers here.
    pub(crate) fn choose(&mut self, rows: &[usize]) {
        self.rows = rows.iter().filter_map(|row| self.rows.get(*row).cloned()).collect();
    }

    /// The whole table, one line feed behind each line.
    pub(crate) fn render(&self, colors: bool) -> String {
        let mut text = String::new();
        for line in self.lines() {
            let mut row = " ".repeat(self.indent);
            for Piece { before, cell, after } in line {
                row += &before;
                row += &cell.paint(colors);
                row += &after;
            }
            text += row.trim_end();
            text.push('\n');
        }
        text
    }

    /// The header and the rows in columns of equal widths.
    pub(crate) fn lines(&self) -> Vec<Vec<Piece>> {
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
        let piece = |column: usize, cell: &Cell| {
            let padding = " ".repeat(widths[column] - cell.width());
            let gap = if column == 0 { "" } else { "  " };
            let (before, after) = if right[column] {
                (format!("{gap}{padding}"), String::new())
            } else {
                (gap.to_owned(), padding)
            };
            Piece { before, cell: cell.clone(), after }
        };
        let line = |row: &Vec<Cell>| {
            row.iter().enumerate().map(|(column, cell)| piece(column, cell)).collect()
        };
        std::iter::once(&headers).chain(&self.rows).map(line).collect()
    }
}

impl Cell {
    /// A coloured field.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: printable(text.into()), tone }
    }

    /// What it says.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// How it is coloured.
    pub(crate) fn tone(&self) -> Tone {
        self.tone
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
