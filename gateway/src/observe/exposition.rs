//! The Prometheus text format, written family by family.

use std::fmt::{Display, Write};

/// What a family counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket, with a sum.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A page of metrics under construction. A family is opened once, then all of its samples follow:
/// the format does not allow them to be mixed.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// The content type that scrapers expect of this text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Opens a family.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        if !help.is_empty() {
            self.text.push_str("# HELP ");
            self.text.push_str(name);
            self.text.push(' ');
            escape(&mut self.text, help, false);
            self.text.push('\n');
        }
        self.put(format_args!("# TYPE {name} {}\n", kind.name()));
    }

    /// Adds a sample to the family that was opened last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, content)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(&mut self.text, content, true);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.put(format_args!(" {value}\n"));
    }

    /// The finished page.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(arguments);
    }
}

/// Labels carry what operators typed as a reason, so quotes, backslashes and line ends must not break the page.
fn escape(text: &mut String, raw: &str, quotes: bool) {
    for character in raw.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_escaped() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let cases: &[Case] = &[
            ("no labels", &[], "x 1\n"),
            ("plain", &[("rule", "spam")], "x{rule=\"spam\"} 1\n"),
            ("two", &[("a", "1"), ("b", "2")], "x{a=\"1\",b=\"2\"} 1\n"),
            ("quote", &[("rule", "a\"b")], "x{rule=\"a\\\"b\"} 1\n"),
            ("backslash", &[("rule", "a\\b")], "x{rule=\"a\\\\b\"} 1\n"),
            ("line end", &[("rule", "a\nx 2")], "x{rule=\"a\\nx 2\"} 1\n"),
        ];
        for (name, labels, expected) in cases {
            let mut page = Exposition::default();
            page.sample("x", labels, 1);
            assert_eq!(page.finish(), *expected, "{name}");
        }
    }

    #[test]
    fn a_family_says_what_it_is() {
        let mut page = Exposition::default();
        page.family("x_total", Kind::Counter, "Things\nseen.");
        page.family("y", Kind::Gauge, "");
        assert_eq!(page.finish(), "# HELP x_total Things\\nseen.\n# TYPE x_total counter\n# TYPE y gauge\n");
    }
}
