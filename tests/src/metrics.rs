//! The Prometheus text format, read back.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads a scrape; panics on a line that is not in the format, since no scraper would take it.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { samples: lines.map(sample).collect() }
    }

    /// The sum of the samples of `name` that carry all of these labels; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether there is such a sample at all.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// The names that start with `prefix`, for a message.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<_> = self.samples.iter().map(|sample| sample.name.clone()).collect();
        names.retain(|name| name.starts_with(prefix));
        names.dedup();
        names
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|have| have == value))
        })
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = match line.find('}') {
        Some(end) => (&line[..=end], line[end + 1..].trim()),
        None => line.split_once(' ').unwrap_or_else(|| panic!("not a metric: {line}")),
    };
    let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
    let value = value.split(' ').next().unwrap();
    Sample {
        name: name.to_owned(),
        labels: labels.split_terminator("\",").map(label).collect(),
        value: value.parse().unwrap_or_else(|_| panic!("not a metric: {line}")),
    }
}

fn label(text: &str) -> (String, String) {
    let (key, value) = text.split_once("=\"").unwrap_or_else(|| panic!("not a label: {text}"));
    (key.to_owned(), value.trim_end_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn sums_the_series_that_carry_the_labels() {
        let metrics = Metrics::parse(
            "# TYPE a counter\na{x=\"1\",y=\"p, q\"} 2\na{x=\"1\",y=\"r\"} 3\na{x=\"2\"} 5\nb 7.5\n",
        );
        for (name, labels, sum) in [
            ("a", &[("x", "1")][..], 5.0),
            ("a", &[("y", "p, q")], 2.0),
            ("a", &[], 10.0),
            ("b", &[], 7.5),
            ("c", &[], 0.0),
        ] {
            assert_eq!(metrics.sum(name, labels), sum, "{name}{labels:?}");
        }
    }
}
