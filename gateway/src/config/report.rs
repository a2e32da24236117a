//! Mistakes in a configuration, all of them at once: where each is, what is wrong and what was meant;
//! for people on a terminal and, as JSON, for editors.

use std::fmt::{self, Write as _};

use gateway_kernel::feed::is_printable;
use serde::Serialize;

/// Mistakes kept and shown. A wrong file can make millions, and nobody reads the second hundred.
pub const MAX_DIAGNOSTICS: usize = 100;
/// Characters of a source line that are shown; a longer one is cut around the mistake.
const MAX_SOURCE_CHARS: usize = 160;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It can run, and somebody should look.
    Warning,
}

/// One mistake, or something that may be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file it is in, as it was named.
    pub file: String,
    /// Its line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// Its column in characters, from 1; 0 when the file as a whole is meant.
    pub column: usize,
    /// How many characters of the line it takes, at least 1 where there is a line.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What may replace the marked text.
    pub suggestion: Option<String>,
    /// The names that would be valid here, where there are few enough to name.
    pub valid: Vec<String>,
    /// The line, without its end.
    pub source_line: String,
}

/// Why a configuration was refused; or, of one that was not, what somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
    total: usize,
}

impl Report {
    fn sorted(mut diagnostics: Vec<Diagnostic>, total: usize, main_file: &str) -> Self {
        diagnostics.sort_by(|a, b| {
            (a.file != main_file, &a.file, a.line, a.column).cmp(&(
                b.file != main_file,
                &b.file,
                b.line,
                b.column,
            ))
        });
        Self { diagnostics, total }
    }

    /// The first [`MAX_DIAGNOSTICS`] mistakes, in the order of the files' lines.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many mistakes there are, those not kept included.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The report for a terminal: each mistake with its line and a caret under the exact place.
    pub fn render(&self, color: bool) -> String {
        let paint = if color { Paint::COLORED } else { Paint::PLAIN };
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            diagnostic.render(&mut out, &paint);
            out.push('\n');
        }
        let what = match self.diagnostics.first() {
            None => return out,
            Some(Diagnostic { severity: Severity::Error, .. }) => "error",
            Some(Diagnostic { severity: Severity::Warning, .. }) => "warning",
        };
        let hidden = self.total - self.diagnostics.len();
        let _ = match (self.total, hidden) {
            (1, _) => writeln!(out, "1 {what}"),
            (total, 0) => writeln!(out, "{total} {what}s"),
            (total, hidden) => writeln!(out, "{total} {what}s, {hidden} not shown"),
        };
        out
    }

    /// The report for editors: an array of objects.
    pub fn json(&self) -> serde_json::Value {
        #[derive(Serialize)]
        struct Row<'a> {
            severity: Severity,
            file: &'a str,
            line: usize,
            column: usize,
            end_column: usize,
            message: &'a str,
            suggestion: Option<&'a str>,
            valid: &'a [String],
        }
        let row = |diagnostic: &Diagnostic| {
            serde_json::json!(Row {
                severity: diagnostic.severity,
                file: &diagnostic.file,
                line: diagnostic.line,
                column: diagnostic.column,
                end_column: diagnostic.column + diagnostic.length,
                message: &diagnostic.message,
                suggestion: diagnostic.suggestion.as_deref(),
                valid: &diagnostic.valid,
            })
        };
        self.diagnostics.iter().map(row).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Report {}

impl Diagnostic {
    /// A mistake that has no line: the file is missing, too large or not text.
    pub(crate) fn of_file(file: impl Into<String>, message: String) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: 0,
            column: 0,
            length: 0,
            message,
            suggestion: None,
            valid: Vec::new(),
            source_line: String::new(),
        }
    }

    fn render(&self, out: &mut String, paint: &Paint) {
        let Paint { bold, error, warning, help, reset } = paint;
        let (word, mark) = match self.severity {
            Severity::Error => ("error", error),
            Severity::Warning => ("warning", warning),
        };
        let file = printable(&self.file);
        let place = match self.line {
            0 => file,
            line => format!("{file}:{line}:{}", self.column),
        };
        let _ = writeln!(
            out,
            "{bold}{place}:{reset} {mark}{word}:{reset} {bold}{}{reset}",
            printable(&self.message)
        );
        if self.line > 0 {
            let (line, before, marked) = self.excerpt();
            let gutter = self.line.to_string();
            let blank = " ".repeat(gutter.len());
            let _ = writeln!(out, " {gutter} | {line}");
            let _ = writeln!(out, " {blank} | {}{mark}{}{reset}", " ".repeat(before), "^".repeat(marked));
        }
        if let Some(suggestion) = &self.suggestion {
            let _ = writeln!(out, "{help}help:{reset} did you mean `{}`?", printable(suggestion));
        }
        if !self.valid.is_empty() {
            let _ = writeln!(out, "{help}valid:{reset} {}", printable(&self.valid.join(", ")));
        }
    }

    /// The part of the line that is shown, the characters before the mark, and those under it.
    fn excerpt(&self) -> (String, usize, usize) {
        let chars: Vec<char> = self.source_line.chars().collect();
        let column = (self.column - 1).min(chars.len());
        let first =
            if chars.len() > MAX_SOURCE_CHARS { column.saturating_sub(MAX_SOURCE_CHARS / 2) } else { 0 };
        let last = chars.len().min(first + MAX_SOURCE_CHARS);
        let mut line: String = if first > 0 { "…".into() } else { String::new() };
        // A tab is shown as one space: the caret below then stands where it should on every terminal.
        line.extend(chars[first..last].iter().map(|&char| visible(if char == '\t' { ' ' } else { char })));
        if last < chars.len() {
            line.push('…');
        }
        let before = column - first + usize::from(first > 0);
        let marked = self.length.clamp(1, (last - column).max(1));
        (line.trim_end().to_owned(), before, marked)
    }
}

/// Collects mistakes, and becomes a report if there are any; and collects warnings beside them.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    diagnostics: Vec<Diagnostic>,
    total: usize,
    warnings: Vec<Diagnostic>,
    total_warnings: usize,
}

impl Findings {
    /// Adds a mistake or a warning, unless it is known: an alias shows what is wrong with its anchor once more.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let (known, total) = match diagnostic.severity {
            Severity::Error => (&mut self.diagnostics, &mut self.total),
            Severity::Warning => (&mut self.warnings, &mut self.total_warnings),
        };
        if known.contains(&diagnostic) {
            return;
        }
        *total += 1;
        if known.len() < MAX_DIAGNOSTICS {
            known.push(diagnostic);
        }
    }

    /// Counts mistakes that were not kept where they were found.
    pub(crate) fn count_more(&mut self, more: usize) {
        self.total += more;
    }

    /// Whether no mistake was found so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The mistakes; the main file's come first, by line, then those of the files it names.
    pub(crate) fn into_report(self, main_file: &str) -> Report {
        Report::sorted(self.diagnostics, self.total, main_file)
    }

    /// The warnings, likewise.
    pub(crate) fn into_warnings(self, main_file: &str) -> Report {
        Report::sorted(self.warnings, self.total_warnings, main_file)
    }
}

impl From<Diagnostic> for Report {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic], total: 1 }
    }
}

struct Paint {
    bold: &'static str,
    error: &'static str,
    warning: &'static str,
    help: &'static str,
    reset: &'static str,
}

impl Paint {
    const PLAIN: Self = Self { bold: "", error: "", warning: "", help: "", reset: "" };
    const COLORED: Self = Self {
        bold: "\x1b[1m",
        error: "\x1b[1;31m",
        warning: "\x1b[1;33m",
        help: "\x1b[1;36m",
        reset: "\x1b[0m",
    };
}

/// A text that a terminal shows and does not obey.
fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn visible(char: char) -> char {
    if is_printable(char) { char } else { char::REPLACEMENT_CHARACTER }
}
