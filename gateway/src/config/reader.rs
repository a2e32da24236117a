//! What reading a value needs: the files' lines to point at, and a place for mistakes; and the search for
//! the name that was meant.

use gateway_kernel::feed::shown;

use crate::config::node::{Key, Node, Place, Scalar, Value};
use crate::config::report::{Diagnostic, Findings, Severity};

/// Reads the values of files.
pub(crate) struct Reader<'a> {
    /// By their numbers.
    files: Vec<Lines<'a>>,
    /// The key whose value is read next: where to point when that value lacks something.
    pub(crate) owner: Option<Place>,
    pub(crate) findings: Findings,
}

/// The lines of a file, and its name in reports.
struct Lines<'a> {
    file: String,
    lines: Vec<&'a str>,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
    pub(crate) valid: Vec<String>,
}

impl<S: Into<String>> From<S> for Wrong {
    fn from(message: S) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
}

impl Wrong {
    pub(crate) fn suggest(message: impl Into<String>, suggestion: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: Some(suggestion.into()), valid: Vec::new() }
    }
}

impl<'a> Reader<'a> {
    /// Reads one file.
    pub(crate) fn new(file: String, text: &'a str) -> Self {
        Self::over([(file, text)])
    }

    /// Reads several, which have their numbers by their order.
    pub(crate) fn over(files: impl IntoIterator<Item = (String, &'a str)>) -> Self {
        let lines = |(file, text): (String, &'a str)| {
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            Lines { file, lines: split_lines(text) }
        };
        Self { files: files.into_iter().map(lines).collect(), owner: None, findings: Findings::default() }
    }

    fn lines(&self, place: Place) -> &[&'a str] {
        self.files.get(place.file).map_or(&[], |file| &file.lines)
    }

    /// A place in words, for a message at another one: the file is named if it is not the same.
    pub(crate) fn line(&self, place: Place, seen_from: Place) -> String {
        match self.files.get(place.file).filter(|_| place.file != seen_from.file) {
            Some(other) => format!("line {} of {}", place.line, other.file),
            None => format!("line {}", place.line),
        }
    }

    /// Reads something that is not in a file, and drops its mistakes.
    pub(crate) fn scratch<T>(read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        read(&mut Reader::new(String::new(), ""))
    }

    /// Reports a mistake. Returns `None` for the value that is not there.
    pub(crate) fn wrong<T>(&mut self, place: Place, wrong: Wrong) -> Option<T> {
        self.find(Severity::Error, place, wrong);
        None
    }

    /// Reports what is no mistake, and may not be meant.
    pub(crate) fn warn(&mut self, place: Place, message: String) {
        self.find(Severity::Warning, place, message.into());
    }

    fn find(&mut self, severity: Severity, place: Place, wrong: Wrong) {
        let place = self.inside(place);
        let source_line = self.lines(place).get(place.line - 1).copied().unwrap_or_default();
        self.findings.push(Diagnostic {
            severity,
            file: self.files.get(place.file).map(|lines| lines.file.clone()).unwrap_or_default(),
            line: place.line,
            column: place.column,
            length: place.length,
            message: wrong.message,
            suggestion: wrong.suggestion,
            valid: wrong.valid,
            source_line: source_line.to_owned(),
        });
    }

    /// Reports a mistake that is only a sentence.
    pub(crate) fn error<T>(&mut self, place: Place, message: impl Into<String>) -> Option<T> {
        self.wrong(place, message.into().into())
    }

    /// Reports a mistake in a scalar. What a reference stands for may be a secret: then the message repeats
    /// only what was written.
    pub(crate) fn wrong_scalar<T>(
        &mut self,
        place: Place,
        scalar: &Scalar,
        noun: &str,
        wrong: Wrong,
    ) -> Option<T> {
        let wrong = match &scalar.written {
            None => wrong,
            Some(written) => Wrong {
                message: format!("what `{}` stands for is not {noun}", shown(written)),
                suggestion: None,
                valid: wrong.valid,
            },
        };
        self.wrong(place, wrong)
    }

    /// Reports a value of the wrong kind.
    pub(crate) fn expected<T>(&mut self, node: &Node, noun: &str) -> Option<T> {
        let found = match &node.value {
            Value::Broken => return None,
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar(Scalar { text, written }) => {
                format!("`{}`", shown(written.as_ref().unwrap_or(text)))
            }
        };
        self.error(node.place, format!("expected {noun}, found {found}"))
    }

    /// Reports a key that no field has.
    pub(crate) fn unknown_key(&mut self, key: &Key, names: &[&str]) {
        let message = match key.name.as_str() {
            "<<" => {
                "merge keys are not part of YAML 1.2; write the keys out, or use an alias for the whole map"
                    .into()
            }
            name => format!("unknown key `{}`", shown(name)),
        };
        let suggestion = closest(&key.name, names.iter().copied()).map(str::to_owned);
        let valid = names.iter().map(|name| (*name).to_owned()).collect();
        self.wrong::<()>(key.place, Wrong { message, suggestion, valid });
    }

    /// Checks a name that the user gave to something.
    pub(crate) fn check_name(&mut self, key: &Key) -> bool {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        let good = (1..=63).contains(&key.name.len()) && key.name.bytes().all(allowed);
        if !good {
            let message =
                format!("`{}` cannot be a name; names are 1 to 63 of a-z, 0-9, _ and -", shown(&key.name));
            let tamed: String = key.name.to_lowercase().replace([' ', '.', '/'], "-");
            let suggestion = ((1..=63).contains(&tamed.len()) && tamed.bytes().all(allowed)).then_some(tamed);
            self.wrong::<()>(key.place, Wrong { message, suggestion, valid: Vec::new() });
        }
        good
    }

    /// The place of a part of a value, when the line shows it; the whole value otherwise.
    pub(crate) fn within(&self, place: Place, part: &str) -> Place {
        let Some(line) = self.lines(place).get(place.line - 1) else { return place };
        let skipped = place.column - 1;
        let Some((start, _)) = line.char_indices().nth(skipped) else { return place };
        match line[start..].find(part) {
            Some(offset) => {
                let before = line[start..start + offset].chars().count();
                Place { column: place.column + before, length: part.chars().count(), ..place }
            }
            None => place,
        }
    }

    /// A place that exists in the file: the end of it is where the last line ends.
    fn inside(&self, place: Place) -> Place {
        let lines = self.lines(place);
        let last = lines.len().max(1);
        if place.line > last {
            let column = lines.last().map_or(0, |line| line.chars().count()) + 1;
            return Place { line: last, column, length: 1, ..place };
        }
        let width = lines.get(place.line - 1).map_or(0, |line| line.chars().count());
        let place = Place { column: place.column.min(width + 1), ..place };
        let length = match self.quoted_length(place) {
            Some(quoted) => quoted.min(place.length),
            None => place.length,
        };
        Place { length: length.max(1), ..place }
    }

    /// The length of the quoted scalar at a place. The parser counts the blanks and the comment behind it, too.
    fn quoted_length(&self, place: Place) -> Option<usize> {
        let mut chars = self.lines(place).get(place.line - 1)?.chars().skip(place.column - 1).enumerate();
        let quote = chars.next().map(|(_, char)| char).filter(|char| matches!(char, '"' | '\''))?;
        while let Some((index, char)) = chars.next() {
            if char == '\\' && quote == '"' {
                chars.next();
            } else if char == quote {
                // In single quotes, two of them are one.
                let doubled = quote == '\'' && chars.clone().next().is_some_and(|(_, next)| next == quote);
                if !doubled {
                    return Some(index + 1);
                }
                chars.next();
            }
        }
        None
    }
}

/// Lines as YAML counts them: a lone carriage return ends one, too.
fn split_lines(text: &str) -> Vec<&str> {
    text.lines().flat_map(|line| line.split('\r')).collect()
}

/// The name that was probably meant, if one is near.
pub(crate) fn closest<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Longer than any name: nothing is near, and the distance takes the product of both lengths.
    if typed.len() > 100 {
        return None;
    }
    let plain = typed.to_lowercase().replace(['-', '_'], "");
    let mut best = None;
    for name in names {
        let candidate = name.to_lowercase().replace(['-', '_'], "");
        let begins = plain.len() >= 3 && (candidate.starts_with(&plain) || plain.starts_with(&candidate));
        let distance = strsim::osa_distance(&plain, &candidate);
        let near = distance <= 1 + candidate.len().min(plain.len()) / 4 && distance < candidate.len();
        if (near || begins) && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}
