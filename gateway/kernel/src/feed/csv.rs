//! Columns separated by commas, semicolons or tabs, one of which holds prefixes or ranges. The first line may
//! name the columns; lines that begin with `#` are comments.
//!
//! `csv-core` finds the fields. The `csv` crate around it would do more, but counts the lines of comments
//! into the row behind them, and takes a quote that nobody closes as a field of as many megabytes as follow.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::notation::{Fault, scan_prefix, shown};
use super::plain::next_line;
use super::{Column, MAX_LINE_BYTES, NOTHING_SAID, Reading, Refused};

/// Columns of one row.
const MAX_COLUMNS: usize = 256;

pub(super) fn read(bytes: &[u8], column: &Column, reading: &mut Reading) {
    if *column == Column::Number(0) {
        reading.refuse(1, Refused::new(b"0", "columns are counted from 1"));
        return;
    }
    let mut rows = Rows::new(bytes);
    let mut wanted = None;
    while let Some(row) = rows.next() {
        let row = match row {
            Ok(row) => row,
            Err((line, refused)) => {
                reading.refuse(line, refused);
                continue;
            }
        };
        let column = match wanted {
            Some(index) => index,
            None => match find(column, &row) {
                Ok((index, is_header)) => {
                    wanted = Some(index);
                    if is_header {
                        continue;
                    }
                    index
                }
                Err(why) => {
                    let name = if let Column::Name(name) = column { name.as_str() } else { "" };
                    reading.refuse(row.line, Refused::new(name.as_bytes(), why));
                    return;
                }
            },
        };
        if let Err(refused) = read_row(&row, column, reading) {
            reading.refuse(row.line, refused);
        }
    }
}

/// The index of the wanted column, and whether the first row is the header.
fn find(column: &Column, first: &Row<'_>) -> Result<(usize, bool), String> {
    match column {
        Column::Number(number) => {
            let index = number.saturating_sub(1);
            Ok((index, first.field(index).is_some_and(is_heading)))
        }
        Column::Name(name) => {
            let is_it = |index: &usize| {
                first.field(*index).is_some_and(|field| field.eq_ignore_ascii_case(name.trim().as_bytes()))
            };
            (0..first.width()).find(is_it).map(|index| (index, true)).ok_or_else(|| {
                let names: Vec<_> = (0..first.width())
                    .filter_map(|index| first.field(index))
                    .map(|field| String::from_utf8_lossy(field))
                    .collect();
                format!("no column is called {}; there are: {}", shown(name), shown(&names.join(", ")))
            })
        }
    }
}

/// Whether a field of the first row is a column's name. A mistyped address is not: it would be lost.
fn is_heading(field: &[u8]) -> bool {
    let dotted = field.contains(&b'.') && field.iter().any(u8::is_ascii_digit);
    let Ok(text) = std::str::from_utf8(field) else { return false };
    scan_prefix(text, true) == Err(Fault::NotAPrefix) && !field.contains(&b':') && !dotted
}

fn read_row<'a>(row: &Row<'a>, column: usize, reading: &mut Reading) -> Result<(), Refused<'a>> {
    let Some(field) = row.field(column) else {
        let why = format!("the row has no column {}, only {}", column.saturating_add(1), row.width());
        return Err(Refused::new(row.field(0).unwrap_or_default(), why));
    };
    let text = std::str::from_utf8(field).map_err(|_| Refused::foreign(field, "the column is not UTF-8"))?;
    reading.add_span(row.line, text, NOTHING_SAID)
}

/// The separator that a line has most of, outside of quotes; a comma if it has none.
pub(super) fn separator_of(line: &[u8]) -> u8 {
    let mut counts = [(b',', 0u32), (b';', 0), (b'\t', 0)];
    let mut quoted = false;
    for &byte in line {
        quoted ^= byte == b'"';
        if !quoted && let Some((_, count)) = counts.iter_mut().find(|(separator, _)| *separator == byte) {
            *count += 1;
        }
    }
    // Of equals, `max_by_key` would take the last.
    counts.iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |&(separator, _)| separator)
}

/// The fields of a single line.
pub(super) fn fields(line: &[u8], separator: u8) -> Option<Vec<Vec<u8>>> {
    let mut rows = Rows::separated_by(line, separator);
    let row = rows.next()?.ok()?;
    Some((0..row.width()).filter_map(|index| row.field(index)).map(<[u8]>::to_vec).collect())
}

/// The rows of a file, each in the same buffer.
struct Rows<'a> {
    rest: &'a [u8],
    line: usize,
    reader: Reader,
    fields: Box<[u8; MAX_LINE_BYTES]>,
    ends: [usize; MAX_COLUMNS],
}

struct Row<'a> {
    line: usize,
    fields: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Row<'a> {
    fn width(&self) -> usize {
        self.ends.len()
    }

    fn field(&self, index: usize) -> Option<&'a [u8]> {
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        Some(self.fields.get(start..*self.ends.get(index)?)?.trim_ascii())
    }
}

impl<'a> Rows<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let (first, _) = next_line(skip_blank(bytes).0);
        Rows::separated_by(bytes, separator_of(first))
    }

    fn separated_by(bytes: &'a [u8], separator: u8) -> Self {
        let fields = Box::new([0; MAX_LINE_BYTES]);
        Rows { rest: bytes, line: 1, reader: reader(separator), fields, ends: [0; MAX_COLUMNS] }
    }

    /// The next row, or the line on which one begins that is none. The latter ends where its line ends, so
    /// that an open quote costs one row.
    fn next(&mut self) -> Option<Result<Row<'_>, (usize, Refused<'a>)>> {
        let (rest, skipped) = skip_blank(self.rest);
        self.rest = rest;
        self.line += skipped;
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        match self.scan() {
            Ok((used, wrote, columns)) => {
                self.line += memchr::memchr_iter(b'\n', &self.rest[..used]).count();
                self.rest = &self.rest[used..];
                Some(Ok(Row { line, fields: &self.fields[..wrote], ends: &self.ends[..columns] }))
            }
            Err(why) => {
                let (text, after) = next_line(self.rest);
                self.reader.reset();
                self.rest = after;
                self.line += 1;
                Some(Err((line, Refused::new(text, why))))
            }
        }
    }

    /// How many bytes a row takes, how many its fields have, and how many fields there are.
    fn scan(&mut self) -> Result<(usize, usize, usize), String> {
        // Doubled quotes and line ends are bytes of the file that no field has.
        let window = &self.rest[..self.rest.len().min(2 * MAX_LINE_BYTES)];
        let whole = window.len() == self.rest.len();
        let reader = &mut self.reader;
        let (result, used, wrote, columns) = reader.read_record(window, &mut self.fields[..], &mut self.ends);
        match result {
            ReadRecordResult::Record => Ok((used, wrote, columns)),
            ReadRecordResult::InputEmpty if whole => {
                // The end of the input ends the row, even within a quote.
                let (result, _, more, last) =
                    reader.read_record(b"", &mut self.fields[wrote..], &mut self.ends[columns..]);
                match result {
                    ReadRecordResult::Record => Ok((used, wrote + more, columns + last)),
                    _ => Err(too_much()),
                }
            }
            _ => Err(too_much()),
        }
    }
}

/// What follows blank lines and comments, which belong to no row, and how many lines these are.
fn skip_blank(bytes: &[u8]) -> (&[u8], usize) {
    let (mut rest, mut lines) = (bytes, 0);
    while !rest.is_empty() {
        let (line, after) = next_line(rest);
        let line = line.trim_ascii_start();
        if !line.is_empty() && !line.starts_with(b"#") {
            break;
        }
        rest = after;
        lines += 1;
    }
    (rest, lines)
}

fn reader(separator: u8) -> Reader {
    ReaderBuilder::new().delimiter(separator).build()
}

fn too_much() -> String {
    format!(
        "a row has at most {MAX_LINE_BYTES} bytes and {MAX_COLUMNS} columns; is there a quote that is not closed?"
    )
}
