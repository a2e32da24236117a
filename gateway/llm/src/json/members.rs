//! The fields of an object, looked at and changed without reading what is in them.
//!
//! A request that goes to a provider of the client's own dialect changes in a field or two, and must not change in any
//! other byte: signatures and prompt caches depend on them. So the body is read once, without memory for what is in its
//! fields, and pieces of it are sent with what is new between them.

use std::borrow::Cow;
use std::ops::Range;

use super::{Fault, Node, Parser, Value, at, parse};
use crate::invalid::{Invalid, Reason};

/// An object, of which nothing but the names of its fields is known.
#[derive(Debug)]
pub struct Members<'a> {
    text: &'a str,
    members: Vec<Member<'a>>,
}

#[derive(Debug)]
struct Member<'a> {
    name: Cow<'a, str>,
    /// From the quote before the name to the last byte of the value.
    range: Range<usize>,
    /// Of the name, with its quotes.
    quoted: Range<usize>,
    value: Range<usize>,
}

/// A change of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit<'e> {
    /// It becomes this JSON, and is added if it is not there.
    Set(&'e str, Cow<'e, str>),
    /// It is taken out, if it is there.
    Remove(&'e str),
    /// It gets another name, if it is there, and nothing has that name.
    Rename(&'e str, &'e str),
}

/// What a changed object is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'e> {
    /// Bytes of the text as it was.
    Kept(Range<usize>),
    /// New ones.
    New(Cow<'e, str>),
}

impl<'a> Members<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// When the text is no JSON, or no object, or nested too deep, or has a name twice among its own.
    pub fn of(text: &'a [u8]) -> Result<Self, Invalid> {
        let Ok(whole) = std::str::from_utf8(text) else {
            return Err(parse(text).err().unwrap_or_else(no_object));
        };
        let mut parser = Parser { text: whole, at: 0, values: 0 };
        let mut members = Vec::new();
        let read = parser.members(&mut members);
        read.map_err(|fault| at(text, parser.at, fault.reason, fault.what))?;
        Ok(Self { text: whole, members })
    }

    fn find(&self, name: &str) -> Option<&Member<'a>> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The JSON of a field.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.find(name).map(|member| &self.text[member.value.clone()])
    }

    /// A field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Node<'a>> {
        parse(self.raw(name)?.as_bytes()).ok()
    }

    /// A string.
    ///
    /// # Errors
    /// When the field is there and is none.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Invalid> {
        match self.get(name).map(|node| node.value) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(is_no("a string", name, &other)),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// When the field is there and is neither.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Invalid> {
        match self.get(name).map(|node| node.value) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(is_no("a boolean", name, &other)),
        }
    }

    /// The object with these changes, in pieces that follow each other. If nothing changes, it is one.
    #[must_use]
    pub fn with<'e>(&self, edits: &[Edit<'e>]) -> Vec<Piece<'e>> {
        let mut changes: Vec<(Range<usize>, Cow<'e, str>)> = Vec::new();
        let mut added: Vec<Cow<'e, str>> = Vec::new();
        let mut removed: Vec<usize> = Vec::new();
        for edit in edits {
            match edit {
                Edit::Set(name, json) => match self.find(name) {
                    Some(member) if self.text[member.value.clone()] == **json => {}
                    Some(member) => changes.push((member.value.clone(), json.clone())),
                    None => added.push(Cow::Owned(format!("{}:{json}", super::quoted(name)))),
                },
                Edit::Remove(name) => {
                    removed.extend(self.members.iter().position(|member| member.name == *name))
                }
                Edit::Rename(from, to) if self.find(to).is_none() => {
                    if let Some(member) = self.find(from) {
                        changes.push((member.quoted.clone(), Cow::Owned(super::quoted(to))));
                    }
                }
                Edit::Rename(from, _) => {
                    removed.extend(self.members.iter().position(|member| member.name == *from))
                }
            }
        }
        removed.sort_unstable();
        removed.dedup();
        let left = self.members.len() - removed.len();
        changes.retain(|(range, _)| {
            !removed.iter().any(|&index| self.members[index].range.contains(&range.start))
        });
        changes.extend(self.without(&removed).into_iter().map(|range| (range, Cow::Borrowed(""))));
        if !added.is_empty() {
            // Behind the brace that begins the object.
            let start = self.text.len() - self.text.trim_start().len() + 1;
            let comma = if left == 0 { "" } else { "," };
            changes.push((start..start, Cow::Owned(format!("{}{comma}", added.join(",")))));
        }
        changes.sort_by_key(|(range, _)| (range.start, range.end));
        self.pieces(changes)
    }

    /// What is cut out with fields that are removed: each with the comma before it, or those at the beginning with the
    /// comma behind them.
    fn without(&self, removed: &[usize]) -> Vec<Range<usize>> {
        let at_front = removed.iter().enumerate().take_while(|(place, index)| place == *index).count();
        let mut cuts = Vec::new();
        if let Some(last) = at_front.checked_sub(1) {
            let end = match self.members.get(at_front) {
                Some(next) => next.range.start,
                None => self.members[last].range.end,
            };
            cuts.push(self.members[0].range.start..end);
        }
        for &index in &removed[at_front..] {
            cuts.push(self.members[index - 1].range.end..self.members[index].range.end);
        }
        cuts
    }

    fn pieces<'e>(&self, changes: Vec<(Range<usize>, Cow<'e, str>)>) -> Vec<Piece<'e>> {
        let mut pieces = Vec::with_capacity(changes.len() * 2 + 1);
        let mut kept = 0;
        for (range, new) in changes {
            if kept < range.start {
                pieces.push(Piece::Kept(kept..range.start));
            }
            if !new.is_empty() {
                pieces.push(Piece::New(new));
            }
            kept = range.end;
        }
        if kept < self.text.len() {
            pieces.push(Piece::Kept(kept..self.text.len()));
        }
        pieces
    }

    /// The object with these changes, in one.
    #[must_use]
    pub fn changed(&self, edits: &[Edit<'_>]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + 64);
        for piece in self.with(edits) {
            match piece {
                Piece::Kept(range) => out.extend_from_slice(&self.text.as_bytes()[range]),
                Piece::New(new) => out.extend_from_slice(new.as_bytes()),
            }
        }
        out
    }
}

fn no_object() -> Invalid {
    Invalid::new(Reason::Type, String::new(), "The body must be a JSON object.")
}

fn is_no(expected: &str, name: &str, value: &Value<'_>) -> Invalid {
    Invalid::new(Reason::Type, name.to_owned(), format!("This must be {expected}, and is {}.", value.kind()))
}

impl<'a> Parser<'a> {
    /// Reads an object, and keeps where its fields are.
    fn members(&mut self, members: &mut Vec<Member<'a>>) -> Result<(), Fault> {
        self.space();
        if self.peek() != Some(b'{') {
            let what = "The body must be a JSON object.";
            return Err(if self.skip(0).is_ok() {
                Fault { reason: Reason::Type, what }
            } else {
                Fault::syntax(what)
            });
        }
        self.at += 1;
        if !self.ends(b'}') {
            loop {
                let (name, quoted) = self.name()?;
                self.space();
                let start = self.at;
                self.skip(1)?;
                let range = quoted.start..self.at;
                if members.iter().any(|known| known.name == name) {
                    self.at = quoted.start;
                    return Err(Fault {
                        reason: Reason::Duplicate,
                        what: "This name stands twice in one object.",
                    });
                }
                if members.len() == MAX_MEMBERS {
                    return Err(Fault::too_large("There are too many fields in it."));
                }
                members.push(Member { name, range, quoted, value: start..self.at });
                if !self.goes_on(b'}')? {
                    break;
                }
            }
        }
        self.space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(Fault::syntax("Something follows the JSON value."))
        }
    }

    /// A name, and where it stands with its quotes; and the colon behind it.
    fn name(&mut self) -> Result<(Cow<'a, str>, Range<usize>), Fault> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(Fault::syntax("A name in quotes is missing here."));
        }
        let start = self.at;
        let name = self.string()?;
        let end = self.at;
        self.space();
        if self.peek() != Some(b':') {
            return Err(Fault::syntax("A colon is missing here."));
        }
        self.at += 1;
        Ok((name, start..end))
    }

    /// Reads a value and keeps nothing of it.
    fn skip(&mut self, depth: usize) -> Result<(), Fault> {
        self.space();
        match self.peek() {
            Some(open @ (b'{' | b'[')) => {
                if depth == super::MAX_DEPTH {
                    return Err(Fault::too_large("It is nested too deep."));
                }
                self.at += 1;
                let end = if open == b'{' { b'}' } else { b']' };
                if self.ends(end) {
                    return Ok(());
                }
                loop {
                    if open == b'{' {
                        self.name()?;
                    }
                    self.skip(depth + 1)?;
                    if !self.goes_on(end)? {
                        return Ok(());
                    }
                }
            }
            Some(b'"') => self.string().map(drop),
            // Without memory of its own.
            _ => self.value(depth).map(drop),
        }
    }
}

/// How many fields a body may have. Each is compared with those before it.
const MAX_MEMBERS: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set<'e>(name: &'e str, json: &'e str) -> Edit<'e> {
        Edit::Set(name, json.into())
    }

    #[test]
    fn fields_change_and_nothing_else_does() {
        let body = "\t{ \"a\" : 1.0 , \"b\":{\"c\": [ 1 ]},\n\"d\":\"\\u00e9\" }\n";
        for (name, edits, expected) in [
            ("nothing", vec![], body),
            ("set to what it is", vec![set("a", "1.0")], body),
            (
                "set",
                vec![set("a", "\"x\"")],
                "\t{ \"a\" : \"x\" , \"b\":{\"c\": [ 1 ]},\n\"d\":\"\\u00e9\" }\n",
            ),
            (
                "added",
                vec![set("x", "1"), set("y\"", "2")],
                "\t{\"x\":1,\"y\\\"\":2, \"a\" : 1.0 , \"b\":{\"c\": [ 1 ]},\n\"d\":\"\\u00e9\" }\n",
            ),
            (
                "the first taken out",
                vec![Edit::Remove("a")],
                "\t{ \"b\":{\"c\": [ 1 ]},\n\"d\":\"\\u00e9\" }\n",
            ),
            ("one amid", vec![Edit::Remove("b")], "\t{ \"a\" : 1.0,\n\"d\":\"\\u00e9\" }\n"),
            ("the last", vec![Edit::Remove("d")], "\t{ \"a\" : 1.0 , \"b\":{\"c\": [ 1 ]} }\n"),
            ("two at the front", vec![Edit::Remove("b"), Edit::Remove("a")], "\t{ \"d\":\"\\u00e9\" }\n"),
            ("first and last", vec![Edit::Remove("d"), Edit::Remove("a")], "\t{ \"b\":{\"c\": [ 1 ]} }\n"),
            ("all", vec![Edit::Remove("a"), Edit::Remove("b"), Edit::Remove("d")], "\t{  }\n"),
            (
                "all, and one added",
                vec![Edit::Remove("a"), Edit::Remove("b"), Edit::Remove("d"), set("x", "1")],
                "\t{\"x\":1  }\n",
            ),
            ("one that is not there", vec![Edit::Remove("x"), Edit::Rename("x", "y")], body),
            (
                "renamed",
                vec![Edit::Rename("b", "x")],
                "\t{ \"a\" : 1.0 , \"x\":{\"c\": [ 1 ]},\n\"d\":\"\\u00e9\" }\n",
            ),
            (
                "renamed and set",
                vec![Edit::Rename("a", "x"), set("a", "2")],
                "\t{ \"x\" : 2 , \"b\":{\"c\": [ 1 ]},\n\"d\":\"\\u00e9\" }\n",
            ),
            (
                "renamed to one that is there",
                vec![Edit::Rename("a", "b")],
                "\t{ \"b\":{\"c\": [ 1 ]},\n\"d\":\"\\u00e9\" }\n",
            ),
            (
                "removed and set",
                vec![set("a", "2"), Edit::Remove("a")],
                "\t{ \"b\":{\"c\": [ 1 ]},\n\"d\":\"\\u00e9\" }\n",
            ),
        ] {
            let members = Members::of(body.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(members.changed(&edits)).unwrap(), expected, "{name}");
        }
        let members = Members::of(body.as_bytes()).unwrap();
        assert_eq!(members.text("d"), Ok(Some("é".into())));
        assert_eq!(members.with(&[]), [Piece::Kept(0..body.len())]);
    }

    #[test]
    fn an_empty_object_can_be_filled() {
        assert_eq!(Members::of(b"{}").unwrap().changed(&[set("a", "1")]), b"{\"a\":1}");
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_place() {
        for (body, reason, place) in [
            (&b"[]"[..], Reason::Type, "column 3"),
            (b"1", Reason::Type, ""),
            (b"", Reason::Syntax, "line 1, column 1"),
            (b"{\"a\":1,}", Reason::Syntax, "column 8"),
            (b"{\"a\":1} x", Reason::Syntax, "column 9"),
            (b"{\"a\":\n{\"b\":tru}}", Reason::Syntax, "line 2, column 6"),
            (b"{\"a\":1,\"\\u0061\":2}", Reason::Duplicate, "column 8"),
            (b"{\"a\":\"\xff\"}", Reason::Syntax, "column 7"),
            (b"{\"a\":\"\\ud800\"}", Reason::Syntax, "column 6"),
        ] {
            let error = Members::of(body).expect_err("it is none");
            assert_eq!(error.reason, reason, "{}", String::from_utf8_lossy(body));
            assert!(error.message.contains(place), "{error}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(10_000));
        assert_eq!(Members::of(deep.as_bytes()).map(drop).unwrap_err().reason, Reason::TooLarge);
    }

    proptest! {
        /// It takes what the parser takes, but for names that stand twice further in.
        #[test]
        fn it_reads_what_the_parser_reads(text in r#"\{("[ab]":(1|-0\.5e3|"\\n"|\[1, ?\{"a":1\}\]|\{\}|true|x|\]|"),? ?){0,5}\}?"#) {
            let (whole, fields) = (parse(text.as_bytes()), Members::of(text.as_bytes()));
            prop_assert_eq!(whole.is_ok(), fields.is_ok(), "{:?} {:?}", whole, fields);
        }

        /// Changing a field twice is changing it once, and the other fields are what they were.
        #[test]
        fn changes_keep_the_rest(values in proptest::collection::vec("[0-9]{1,3}|\"[a-z]\"|\\[1, 2\\]", 1..6), at in 0usize..6) {
            let values: Vec<String> = values.iter().map(|value| if value.starts_with('0') { "0".into() } else { value.clone() }).collect();
            let fields: Vec<String> = values.iter().enumerate().map(|(i, value)| format!("\"k{i}\" : {value}")).collect();
            let body = format!("{{ {} }}", fields.join(" , "));
            let name = format!("k{at}");
            let once = Members::of(body.as_bytes()).unwrap().changed(&[Edit::Set(&name, "null".into())]);
            let changed = Members::of(&once).unwrap();
            prop_assert_eq!(&changed.changed(&[Edit::Set(&name, "null".into())]), &once);
            for (i, value) in values.iter().enumerate().filter(|(i, _)| *i != at) {
                let name = format!("k{i}");
                prop_assert_eq!(changed.raw(&name), Some(value.as_str()));
            }
            let gone = Members::of(body.as_bytes()).unwrap().changed(&[Edit::Remove(&name)]);
            let gone = Members::of(&gone).unwrap();
            prop_assert_eq!(gone.members.len(), values.len() - usize::from(at < values.len()));
        }
    }
}
