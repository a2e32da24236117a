//! Output: aligned and coloured for a terminal, one record a line with tabs for a pipe.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Duration;

/// Where a command writes.
pub(super) struct Out {
    writer: Box<dyn Write>,
    /// A person reads it.
    pub(super) terminal: bool,
    /// It may be coloured.
    pub(super) color: bool,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Out").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

impl Out {
    /// The standard output of the process.
    pub(super) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            writer: Box::new(BufWriter::with_capacity(64 << 10, io::stdout())),
            terminal,
            color: terminal && colour_wanted(),
        }
    }

    /// A line.
    pub(super) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        self.writer.write_all(text.as_ref().as_bytes())?;
        self.writer.write_all(b"\n")
    }

    /// Text that brings its own line ends.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())
    }

    /// A JSON document: indented for people, one line for programs.
    pub(super) fn json(&mut self, document: &impl serde::Serialize) -> io::Result<()> {
        let text = match self.terminal {
            true => serde_json::to_string_pretty(document)?,
            false => serde_json::to_string(document)?,
        };
        self.line(text)
    }

    /// A JSON document that is one of many: a line each, whoever reads it.
    pub(super) fn json_line(&mut self, document: &impl serde::Serialize) -> io::Result<()> {
        let text = serde_json::to_string(document)?;
        self.line(text)
    }

    /// A table. On a terminal its columns are aligned under a heading; in a pipe every row is a line of
    /// fields with tabs between them, and there is no heading to be skipped.
    pub(super) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) -> io::Result<()> {
        if !self.terminal {
            return rows.iter().try_for_each(|row| self.line(row.join("\t")));
        }
        let widths: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
                cells.chain([column.name.chars().count()]).max().unwrap_or(0)
            })
            .collect();
        if columns.iter().any(|column| !column.name.is_empty()) {
            let names: Vec<String> = columns.iter().map(|column| column.name.to_owned()).collect();
            let heading = aligned(columns, &widths, &names);
            let heading = self.paint(Paint::Bold, &heading);
            self.line(heading)?;
        }
        rows.iter().try_for_each(|row| self.line(aligned(columns, &widths, row)))
    }

    /// The text in a colour, where colours are wanted.
    pub(super) fn paint(&self, paint: Paint, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Bold => 1,
            Paint::Red => 31,
            Paint::Green => 32,
            Paint::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    right: bool,
}

impl Column {
    /// Words: aligned on the left.
    pub(super) const fn words(name: &'static str) -> Self {
        Self { name, right: false }
    }

    /// Numbers: aligned on the right.
    pub(super) const fn number(name: &'static str) -> Self {
        Self { name, right: true }
    }
}

/// How a text stands out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Paint {
    Bold,
    Red,
    Green,
    Yellow,
}

fn aligned(columns: &[Column], widths: &[usize], row: &[String]) -> String {
    let mut line = String::new();
    for (index, ((column, width), cell)) in columns.iter().zip(widths).zip(row).enumerate() {
        if index > 0 {
            line.push_str("  ");
        }
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        if column.right {
            line.push_str(&padding);
        }
        line.push_str(cell);
        if !column.right {
            line.push_str(&padding);
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// Whether the user wants colours at all (no-color.org).
pub(super) fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A text without anything that a terminal would obey: what an agent or a file says is not trusted that far.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|char| if gateway_kernel::feed::is_printable(char) { char } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

/// A duration as people say it, in its two largest units.
pub(super) fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let largest = units.iter().position(|(size, _)| seconds >= *size).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut words = Vec::new();
    for (size, unit) in units.iter().skip(largest).take(2) {
        if rest / size > 0 || words.is_empty() {
            words.push(format!("{}{unit}", rest / size));
        }
        rest %= size;
    }
    words.join(" ")
}

/// `1 entry`, `2 entries`.
pub(super) fn entries(count: usize) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written.
    #[derive(Debug, Clone, Default)]
    pub(in crate::cli) struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("a page").clone()).expect("UTF-8")
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a page").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `print` writes, for a terminal (without colour) or for a pipe.
    pub(in crate::cli) fn printed<E: std::fmt::Debug>(
        terminal: bool,
        print: impl FnOnce(&mut Out) -> Result<(), E>,
    ) -> String {
        let page = Page::default();
        let mut out = Out { writer: Box::new(page.clone()), terminal, color: false };
        print(&mut out).expect("printed");
        page.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit_their_reader() {
        let columns = [Column::words("NAME"), Column::number("PACKETS"), Column::words("NOTE")];
        let rows = vec![
            vec!["a".into(), "7".into(), String::new()],
            vec!["long".into(), "12345678".into(), "x".into()],
        ];
        let terminal = testing::printed(true, |out| out.table(&columns, &rows));
        assert_eq!(terminal, "NAME   PACKETS  NOTE\na            7\nlong  12345678  x\n");
        let pipe = testing::printed(false, |out| out.table(&columns, &rows));
        assert_eq!(pipe, "a\t7\t\nlong\t12345678\tx\n");
    }

    #[test]
    fn durations_are_spelled() {
        let table = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3600, "1h"),
            (3601, "1h"),
            (90_061, "1d 1h"),
        ];
        for (seconds, expected) in table {
            assert_eq!(spell(Duration::from_secs(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn terminals_are_not_commanded() {
        assert_eq!(clean("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}
