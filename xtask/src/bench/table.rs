//! Figures for people: medians with ranges, and Markdown tables that read well as plain text.

use std::fmt::Write as _;

/// The middle of some figures, and how far they go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` without figures, or with one that is not a number.
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        if sorted.iter().any(|figure| !figure.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, least, most })
    }

    /// `9.93 (9.81–10.10)`.
    pub(crate) fn show(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.least, self.most)
    }
}

/// Renders a table whose first column is text and whose others are figures.
pub(crate) fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        for (column, width) in widths.iter().enumerate() {
            let cell = cells.get(column).map_or("", String::as_str);
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
    };
    line(&header.iter().map(ToString::to_string).collect::<Vec<_>>());
    let rule = |(column, width): (usize, &usize)| {
        if column == 0 { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) }
    };
    line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
    for row in rows {
        line(row);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let spread = |median, least, most| Some(Spread { median, least, most });
        let cases: [(&str, &[f64], Option<Spread>); 6] = [
            ("none", &[], None),
            ("one", &[2.0], spread(2.0, 2.0, 2.0)),
            ("odd, unsorted", &[3.0, 1.0, 2.0], spread(2.0, 1.0, 3.0)),
            ("even", &[4.0, 1.0, 2.0, 3.0], spread(2.5, 1.0, 4.0)),
            ("an outlier does not move the median", &[1.0, 1.0, 1.0, 1.0, 99.0], spread(1.0, 1.0, 99.0)),
            ("not a number", &[1.0, f64::NAN], None),
        ];
        for (name, figures, expected) in cases {
            assert_eq!(Spread::of(figures), expected, "{name}");
        }
        assert_eq!(Spread { median: 9.934, least: 9.8, most: 10.1 }.show(2), "9.93 (9.80–10.10)");
    }

    #[test]
    fn tables() {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        let cases = [
            ("empty", vec![], "| who |  µs |\n| --- | --: |\n"),
            (
                "wide cells",
                vec![row(&["gateway", "1.5"]), row(&["x", "10 (9–11)"])],
                "| who     |        µs |\n| ------- | --------: |\n| gateway |       1.5 |\n| x       | 10 (9–11) |\n",
            ),
            ("a cell missing", vec![row(&["a"])], "| who |  µs |\n| --- | --: |\n| a   |     |\n"),
        ];
        for (name, rows, expected) in cases {
            assert_eq!(markdown(&["who", "µs"], &rows), expected, "{name}");
        }
    }
}
