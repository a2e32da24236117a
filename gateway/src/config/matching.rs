//! How routes say what they ask of a request: a path in one of several forms, and what is asked of fields by name.

use gateway_kernel::feed::shown;
use http::HeaderName;
use serde_json::{Value as Json, json};

use crate::config::node::{Key, Node, Value};
use crate::config::notation::{FieldName, Pattern, Regex, Template};
use crate::config::reader::Reader;
use crate::config::shape::{
    At, Choice, Located, Notation, Optional, Required, Shape, entries_of, record, section,
};
use crate::model::{self, FieldTemplate, PathPattern, Test};

/// A path: a text, or a map with a regular expression.
pub(crate) struct PathOf;

record! {
    /// A path by regular expression.
    ByRegex {
        /// It has to match the whole path.
        regex: Option<model::Pattern> = Required(Regex),
    }
}

impl Shape for PathOf {
    type Out = PathPattern;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<PathPattern> {
        let path = match &node.value {
            Value::Map(_) => {
                section::<ByRegex>().read(node, reader).and_then(|map| map.regex).map(PathPattern::Regex)
            }
            _ => Pattern.read(node, reader),
        };
        // A mistake is reported, and nobody will use this; but it must not look like the path of another route.
        path.or_else(|| Some(PathPattern::Exact(format!("{:?}", node.place))))
    }

    fn noun(&self) -> String {
        format!("{} or a map with `regex`", Notation::noun(&Pattern))
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [Shape::schema(&Pattern), section::<ByRegex>().schema()] })
    }
}

/// A map from names to what is asked of them; the names as this notation has them, and at most so many.
pub(crate) struct TestsBy<N>(pub(crate) N, pub(crate) usize);

record! {
    /// What is asked of a value.
    Asked {
        /// The whole value matches it.
        regex: Option<model::Pattern> = Optional(Regex),
        /// It is there, or is not.
        present: Option<bool> = Optional(Choice(&[("true", true), ("false", false)])),
    }
}

impl<N: Notation> Shape for TestsBy<N> {
    type Out = Vec<(N::Out, Test)>;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out> {
        let entries = entries_of(node, self.1, || self.noun(), reader)?;
        let read: Self::Out =
            entries.iter().filter_map(|(key, value)| self.read_entry(key, value, reader)).collect();
        // A map of which nothing is left is not an empty one.
        (!read.is_empty() || entries.is_empty()).then_some(read)
    }

    fn noun(&self) -> String {
        format!("a map from {} to a value, `{{regex: …}}` or `{{present: …}}`", plural(&self.0.noun()))
    }

    fn schema(&self) -> Json {
        let asked = section::<Asked>().schema();
        json!({
            "type": ["object", "null"],
            "additionalProperties": { "anyOf": [{ "type": ["string", "number", "boolean"] }, asked] },
            "maxProperties": self.1,
        })
    }
}

impl<N: Notation> TestsBy<N> {
    fn read_entry(&self, key: &Key, value: &Node, reader: &mut Reader<'_>) -> Option<(N::Out, Test)> {
        let name = match self.0.parse(&key.name) {
            Ok(name) => Some(name),
            Err(wrong) => reader.wrong(key.place, wrong),
        };
        let test = match &value.value {
            Value::Scalar(scalar) => Some(Test::Is(scalar.text.clone())),
            Value::Map(entries) => {
                let Asked { regex, present } = section::<Asked>().read(value, reader)?;
                if entries.len() != 1 {
                    let name = shown(&key.name);
                    reader.error::<()>(value.place, format!("{name} takes one of `regex` and `present`"));
                }
                regex.map(Test::Matches).or(present.map(Test::Present))
            }
            _ => reader.expected(value, "a value, or a map with `regex` or `present`"),
        };
        Some((name?, test?))
    }
}

/// `a name` becomes `names`.
fn plural(noun: &str) -> String {
    let noun = noun.split(" such as ").next().unwrap_or(noun);
    format!("{}s", noun.trim_start_matches("a "))
}

/// A map from names of header fields to values, at most so many.
pub(crate) struct FieldsOf(pub(crate) usize);

impl Shape for FieldsOf {
    type Out = Vec<(HeaderName, Located<FieldTemplate>)>;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out> {
        let entries = entries_of(node, self.0, || self.noun(), reader)?;
        let mut read = Vec::new();
        for (key, value) in entries {
            let name = match FieldName.parse(&key.name) {
                Ok(name) => Some(name),
                Err(wrong) => reader.wrong(key.place, wrong),
            };
            if let (Some(name), Some(template)) = (name, At(Template).read(value, reader)) {
                // Where the name stands is where it is wrong, if it is one that nobody may change.
                read.push((name, Located { place: key.place, ..template }));
            }
        }
        Some(read)
    }

    fn noun(&self) -> String {
        "a map from header fields to values".to_owned()
    }

    fn schema(&self) -> Json {
        json!({
            "type": ["object", "null"],
            "additionalProperties": { "type": ["string", "number", "boolean"] },
            "maxProperties": self.0,
        })
    }
}
