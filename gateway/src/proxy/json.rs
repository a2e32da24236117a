//! Looks fields up in a JSON text, by pointer (RFC 6901): one pass, which keeps what was asked for and nothing else.
//!
//! Readers of JSON do not agree about names that stand twice in an object: some take the first, some the last, some
//! know no case. Whoever wants to be routed by one value and served by another uses that. So where the fields that are
//! asked for are looked for, a name that stands twice, or differs from the one asked for by its case alone, makes the
//! text unreadable. What else is in a text is none of our business, whatever stands twice there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::{Pointer, Test};

/// The fields that are looked for, as a tree of names.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The first is the text as a whole.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// By the name without its case: the name, and the index of its node.
    children: HashMap<String, Vec<(String, usize)>>,
    /// Bytes of the longest name.
    longest: usize,
}

/// What was found, by node.
#[derive(Debug)]
pub(super) struct Fields<'de>(Vec<Option<Value<'de>>>);

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value<'de> {
    /// A string's text, a number in its shortest form, `true` or `false`.
    Text(Cow<'de, str>),
    /// Null, an object or an array.
    Other,
}

/// Why a text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    NotJson,
    Twice,
    Alike,
}

impl Unreadable {
    /// In a sentence for whoever sent it.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::NotJson => "The body says that it is JSON, and is not.",
            Self::Twice => "The body has a name that it is routed by twice in one object.",
            Self::Alike => "The body has a name that differs by its case from one that it is routed by.",
        }
    }
}

impl Wanted {
    pub(super) fn new<'a>(pointers: impl IntoIterator<Item = &'a Pointer>) -> Self {
        let mut wanted = Self { nodes: vec![Node::default()] };
        for pointer in pointers {
            let mut at = 0;
            for step in pointer.steps() {
                at = wanted.child(at, step).unwrap_or_else(|| wanted.add(at, step));
            }
        }
        wanted
    }

    fn child(&self, at: usize, name: &str) -> Option<usize> {
        let same = self.nodes[at].children.get(&folded(name))?;
        same.iter().find(|(known, _)| known == name).map(|(_, node)| *node)
    }

    fn add(&mut self, at: usize, name: &str) -> usize {
        let new = self.nodes.len();
        self.nodes.push(Node::default());
        let node = &mut self.nodes[at];
        node.longest = node.longest.max(name.len());
        node.children.entry(folded(name)).or_default().push((name.to_owned(), new));
        new
    }

    /// Finds the fields of a text.
    pub(super) fn read<'de>(&self, text: &'de str) -> Result<Fields<'de>, Unreadable> {
        let mut reading =
            Reading { wanted: self, found: vec![None; self.nodes.len()], why: Unreadable::NotJson };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let whole = At { reading: &mut reading, node: 0 }.deserialize(&mut deserializer);
        match whole.and_then(|()| deserializer.end()) {
            Ok(()) => Ok(Fields(reading.found)),
            Err(_) => Err(reading.why),
        }
    }

    /// Whether what was found at a place is what is asked for.
    pub(super) fn holds(&self, fields: &Fields<'_>, pointer: &Pointer, test: &Test) -> bool {
        let node = pointer.steps().iter().try_fold(0, |at, step| self.child(at, step));
        let value = node.and_then(|node| fields.0.get(node)?.as_ref());
        match (test, value) {
            (Test::Present(expected), value) => value.is_some() == *expected,
            (Test::Is(expected), Some(Value::Text(text))) => text == expected,
            (Test::Matches(pattern), Some(Value::Text(text))) => pattern.matches(text),
            (_, None | Some(Value::Other)) => false,
        }
    }
}

/// A name without its case. Both ways, as there are letters that only one of them brings together.
fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

struct Reading<'a, 'de> {
    wanted: &'a Wanted,
    found: Vec<Option<Value<'de>>>,
    /// What an error means, if there is one.
    why: Unreadable,
}

/// A value that is, or holds, one that is looked for.
struct At<'r, 'a, 'de> {
    reading: &'r mut Reading<'a, 'de>,
    node: usize,
}

impl<'de> At<'_, '_, 'de> {
    fn is(self, value: Value<'de>) {
        self.reading.found[self.node] = Some(value);
    }
}

impl<'de> DeserializeSeed<'de> for At<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.is(Value::Text(Cow::Borrowed(if value { "true" } else { "false" })));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.is(Value::Text(value.to_string().into()));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.is(Value::Text(value.to_string().into()));
        Ok(())
    }

    /// `1.0` and `1e0` are the number that `1` is.
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.is(Value::Text(value.to_string().into()));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<(), E> {
        self.is(Value::Text(Cow::Borrowed(value)));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.is(Value::Text(Cow::Owned(value.to_owned())));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.is(Value::Other);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let At { reading, node } = self;
        reading.found[node] = Some(Value::Other);
        while let Some(name) = map.next_key_seed(Name { reading, node })? {
            match name {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(child) => map.next_value_seed(At { reading, node: child })?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let At { reading, node } = self;
        reading.found[node] = Some(Value::Other);
        let has_children = !reading.wanted.nodes[node].children.is_empty();
        for index in 0_usize.. {
            let child = has_children.then(|| reading.wanted.child(node, &index.to_string())).flatten();
            let goes_on = match child {
                None => items.next_element::<IgnoredAny>()?.is_some(),
                Some(child) => items.next_element_seed(At { reading, node: child })?.is_some(),
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}

/// A name in an object: the node that it leads to, if any.
struct Name<'r, 'a, 'de> {
    reading: &'r mut Reading<'a, 'de>,
    node: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_, 'de> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_, '_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Option<usize>, E> {
        let Node { children, longest } = &self.reading.wanted.nodes[self.node];
        // A letter has at most four bytes, whatever its case.
        if name.len() > longest.saturating_mul(4) {
            return Ok(None);
        }
        let Some(same) = children.get(&folded(name)) else { return Ok(None) };
        let Some((_, child)) = same.iter().find(|(known, _)| known == name) else {
            self.reading.why = Unreadable::Alike;
            return Err(E::custom("a name like one that is looked for"));
        };
        if self.reading.found[*child].is_some() {
            self.reading.why = Unreadable::Twice;
            return Err(E::custom("a name that stands twice"));
        }
        Ok(Some(*child))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Pattern;

    /// Whether a text has this at a place, while others are looked for, too.
    fn reads(text: &str, pointer: &str, test: &Test) -> Result<bool, Unreadable> {
        let pointers = [pointer, "/other", "/deep/er/still"].map(|text| Pointer::new(text).unwrap());
        let wanted = Wanted::new(&pointers);
        wanted.read(text).map(|fields| wanted.holds(&fields, &pointers[0], test))
    }

    #[test]
    fn fields_are_found_or_the_text_is_unreadable() {
        let is = |text: &str| Test::Is(text.to_owned());
        let like = |text: &str| Test::Matches(Pattern::new(text).unwrap());
        let (there, gone) = (Test::Present(true), Test::Present(false));
        let (yes, no) = (Ok(true), Ok(false));
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let below = format!(r#"{{"x":{},"model":"a"}}"#, deep);
        for (name, text, pointer, test, expected) in [
            ("a string", r#"{"model":"gpt-4"}"#, "/model", is("gpt-4"), yes),
            ("another", r#"{"model":"gpt-4"}"#, "/model", is("gpt-5"), no),
            ("its case", r#"{"model":"GPT-4"}"#, "/model", is("gpt-4"), no),
            ("an escape", r#"{"model":"\u0067pt\t"}"#, "/model", is("gpt\t"), yes),
            ("an escaped name", r#"{"mod\u0065l":"a"}"#, "/model", is("a"), yes),
            ("blanks", " {\n\"model\" :\t\"a\" } ", "/model", is("a"), yes),
            ("among others", r#"{"x":[{"model":1}],"model":"a","y":null}"#, "/model", is("a"), yes),
            ("below", r#"{"user":{"tier":"gold"}}"#, "/user/tier", is("gold"), yes),
            ("below nothing", r#"{"user":"tier"}"#, "/user/tier", there.clone(), no),
            ("in an array", r#"{"a":[{"b":1},{"b":2}]}"#, "/a/1/b", is("2"), yes),
            ("beyond an array", r#"{"a":[1]}"#, "/a/1", gone.clone(), yes),
            ("no place in one", r#"{"a":[1,2]}"#, "/a/01", gone.clone(), yes),
            ("a name that is a number", r#"{"a":{"1":"x"}}"#, "/a/1", is("x"), yes),
            ("a slash", r#"{"a/b":"x"}"#, "/a~1b", is("x"), yes),
            ("a tilde", r#"{"a~b":"x"}"#, "/a~0b", is("x"), yes),
            ("an empty name", r#"{"":"x"}"#, "/", is("x"), yes),
            ("a number", r#"{"n":10}"#, "/n", is("10"), yes),
            ("one below zero", r#"{"n":-10}"#, "/n", is("-10"), yes),
            ("a fraction", r#"{"n":1.50}"#, "/n", is("1.5"), yes),
            ("a whole number, longer", r#"{"n":1.0e0}"#, "/n", is("1"), yes),
            ("true", r#"{"b":true}"#, "/b", is("true"), yes),
            ("null is there", r#"{"b":null}"#, "/b", there.clone(), yes),
            ("null is no text", r#"{"b":null}"#, "/b", is("null"), no),
            ("an object is there", r#"{"b":{}}"#, "/b", there.clone(), yes),
            ("an object is no text", r#"{"b":{}}"#, "/b", like(".*"), no),
            ("a pattern", r#"{"b":"gpt-4o"}"#, "/b", like("gpt-.*"), yes),
            ("the whole of it", r#"{"b":"my gpt-4o"}"#, "/b", like("gpt-.*"), no),
            ("absent", "{}", "/b", gone.clone(), yes),
            ("a text that is no object", "[]", "/b", gone.clone(), yes),
            ("deep elsewhere", &below, "/model", is("a"), yes),
            ("twice", r#"{"model":"a","model":"b"}"#, "/model", is("a"), Err(Unreadable::Twice)),
            (
                "twice, escaped",
                r#"{"model":"a","\u006dodel":"a"}"#,
                "/model",
                is("a"),
                Err(Unreadable::Twice),
            ),
            ("twice on the way", r#"{"u":{"t":1},"u":{}}"#, "/u/t", is("1"), Err(Unreadable::Twice)),
            (
                "null and once more",
                r#"{"model":null,"model":"b"}"#,
                "/model",
                is("b"),
                Err(Unreadable::Twice),
            ),
            ("twice elsewhere", r#"{"x":1,"x":2,"model":"a"}"#, "/model", is("a"), yes),
            ("twice below it", r#"{"model":{"x":1,"x":2}}"#, "/model", there.clone(), yes),
            (
                "another's twice",
                r#"{"model":"a","other":1,"other":2}"#,
                "/model",
                is("a"),
                Err(Unreadable::Twice),
            ),
            ("another case", r#"{"Model":"a"}"#, "/model", is("a"), Err(Unreadable::Alike)),
            ("both cases", r#"{"model":"a","MODEL":"b"}"#, "/model", is("a"), Err(Unreadable::Alike)),
            ("a long s", "{\"u\u{17f}er\":\"a\"}", "/user", is("a"), Err(Unreadable::Alike)),
            ("kelvin", "{\"\u{212a}ey\":\"a\"}", "/key", is("a"), Err(Unreadable::Alike)),
            ("nothing", "", "/a", gone.clone(), Err(Unreadable::NotJson)),
            ("something behind it", r#"{"a":1}x"#, "/a", there.clone(), Err(Unreadable::NotJson)),
            ("two texts", r#"{"a":1}{"a":2}"#, "/a", there.clone(), Err(Unreadable::NotJson)),
            ("a comma too many", r#"{"a":1,}"#, "/a", there.clone(), Err(Unreadable::NotJson)),
            ("a comment", r#"{/*x*/"a":1}"#, "/a", there.clone(), Err(Unreadable::NotJson)),
            ("other quotes", "{'a':1}", "/a", there.clone(), Err(Unreadable::NotJson)),
            ("no number", r#"{"a":NaN}"#, "/a", there.clone(), Err(Unreadable::NotJson)),
            ("no number elsewhere", r#"{"x":Infinity,"a":1}"#, "/a", there.clone(), Err(Unreadable::NotJson)),
            ("a mark of byte order", "\u{feff}{}", "/a", gone.clone(), Err(Unreadable::NotJson)),
            ("cut off", r#"{"a":"x"#, "/a", there.clone(), Err(Unreadable::NotJson)),
            ("half a character", r#"{"a":"\ud800"}"#, "/a", there.clone(), Err(Unreadable::NotJson)),
        ] {
            assert_eq!(reads(text, pointer, &test), expected, "{name}");
        }
    }

    proptest! {
        /// What serde_json makes of a whole text is what is found in it.
        #[test]
        fn what_is_found_is_what_is_there(
            names in proptest::collection::vec("[a-c~/é]{0,2}", 1..4),
            value in "\\PC{0,8}",
            arrays in proptest::collection::vec(any::<bool>(), 3),
        ) {
            let mut text = serde_json::json!(value);
            let mut pointer = String::new();
            for (name, is_array) in names.iter().zip(arrays) {
                let step = if is_array { "1".to_owned() } else { name.replace('~', "~0").replace('/', "~1") };
                text = if is_array { serde_json::json!([0, text]) } else { serde_json::json!({ name: text, "z": 0 }) };
                pointer = format!("/{step}{pointer}");
            }
            let written = text.to_string();
            prop_assert_eq!(text.pointer(&pointer).and_then(|v| v.as_str()), Some(value.as_str()));
            prop_assert_eq!(reads(&written, &pointer, &Test::Is(value)), Ok(true));
        }
    }
}
