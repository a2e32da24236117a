//! The table that everything about a key comes from. A record lists its fields once, each with its shape,
//! default and sentence; reading, valid names, suggestions, the JSON Schema and the reference in the
//! guide are all made of that list, so they cannot disagree.

use std::marker::PhantomData;

use serde_json::{Value as Json, json};

use crate::config::node::{Key, Node, Place, Value};
use crate::config::reader::{Reader, Wrong, closest};

/// How a value is written and what it becomes.
pub(crate) trait Shape {
    /// What it becomes.
    type Out;
    /// Reads a value; `None` after its mistake has been reported.
    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out>;
    /// The value in words that fit after "expected": `a duration from 1s to 1h`.
    fn noun(&self) -> String;
    /// The same as a JSON Schema.
    fn schema(&self) -> Json;
    /// The keys below it.
    fn keys(&self) -> Vec<FieldInfo> {
        Vec::new()
    }
    /// What stands between this key and the keys below it in a path: `.<name>` for a map, `[]` for a list.
    fn step(&self) -> &'static str {
        ""
    }
}

/// A value that is one scalar. The text never enters a message when it came from a substitution.
pub(crate) trait Notation {
    /// What the text becomes.
    type Out;
    fn parse(&self, text: &str) -> Result<Self::Out, Wrong>;
    fn noun(&self) -> String;
    fn schema(&self) -> Json;
}

impl<N: Notation> Shape for N {
    type Out = N::Out;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<N::Out> {
        let Value::Scalar(scalar) = &node.value else { return reader.expected(node, &Notation::noun(self)) };
        match self.parse(&scalar.text) {
            Ok(value) => Some(value),
            Err(wrong) => reader.wrong_scalar(node.place, scalar, &Notation::noun(self), wrong),
        }
    }

    fn noun(&self) -> String {
        Notation::noun(self)
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [Notation::schema(self), { "$ref": "#/$defs/reference" }] })
    }
}

/// A value with its place, for what can only be judged together with others.
#[derive(Debug, Clone)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
    /// As it was written, when something in it was replaced.
    pub(crate) written: Option<String>,
}

impl<T> Located<T> {
    /// Another value at the same place.
    pub(crate) fn map<U>(&self, map: impl FnOnce(&T) -> U) -> Located<U> {
        Located { value: map(&self.value), place: self.place, written: self.written.clone() }
    }
}

/// Keeps the place of what its inner shape reads.
pub(crate) struct At<S>(pub(crate) S);

impl<S: Shape> Shape for At<S> {
    type Out = Located<S::Out>;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out> {
        let written = match &node.value {
            Value::Scalar(scalar) => scalar.written.clone(),
            _ => None,
        };
        let value = self.0.read(node, reader)?;
        Some(Located { value, place: node.place, written })
    }

    fn noun(&self) -> String {
        self.0.noun()
    }

    fn schema(&self) -> Json {
        self.0.schema()
    }

    fn keys(&self) -> Vec<FieldInfo> {
        self.0.keys()
    }

    fn step(&self) -> &'static str {
        self.0.step()
    }
}

/// A list of at most so many values.
pub(crate) struct ListOf<S>(pub(crate) S, pub(crate) usize);

impl<S: Shape> Shape for ListOf<S> {
    type Out = Vec<S::Out>;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out> {
        match &node.value {
            Value::Null => Some(Vec::new()),
            Value::List(items) if items.len() > self.1 => {
                let message =
                    format!("{} entries are too many here; at most {} are allowed", items.len(), self.1);
                reader.error(node.place, message)
            }
            Value::List(items) => {
                let read: Vec<S::Out> = items.iter().filter_map(|item| self.0.read(item, reader)).collect();
                // A list of which nothing is left is not an empty one.
                (!read.is_empty() || items.is_empty()).then_some(read)
            }
            _ => reader.expected(node, &self.noun()),
        }
    }

    fn noun(&self) -> String {
        format!("a list, each entry {}", self.0.noun())
    }

    fn schema(&self) -> Json {
        json!({ "type": ["array", "null"], "items": self.0.schema(), "maxItems": self.1 })
    }

    fn keys(&self) -> Vec<FieldInfo> {
        self.0.keys()
    }

    fn step(&self) -> &'static str {
        "[]"
    }
}

/// A list, or one value for a list of one.
pub(crate) struct OneOrListOf<S>(pub(crate) ListOf<S>);

impl<S: Shape> Shape for OneOrListOf<S> {
    type Out = Vec<S::Out>;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out> {
        match &node.value {
            Value::Null | Value::List(_) => self.0.read(node, reader),
            _ => self.0.0.read(node, reader).map(|one| vec![one]),
        }
    }

    fn noun(&self) -> String {
        format!("{}, or a list of them", self.0.0.noun())
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [self.0.0.schema(), self.0.schema()] })
    }

    fn keys(&self) -> Vec<FieldInfo> {
        self.0.keys()
    }

    fn step(&self) -> &'static str {
        self.0.0.step()
    }
}

/// One entry of a map.
#[derive(Debug)]
pub(crate) struct Named<T> {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// `None` after its mistake has been reported: the name is known all the same.
    pub(crate) value: Option<T>,
}

/// A map from names to values, at most so many.
pub(crate) struct MapOf<S>(pub(crate) S, pub(crate) usize);

/// Names in maps, which are names in metrics, too.
const NAME_PATTERN: &str = "^[a-z0-9_-]{1,63}$";

impl<S: Shape> Shape for MapOf<S> {
    type Out = Vec<Named<S::Out>>;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out> {
        let entries = entries_of(node, self.1, || self.noun(), reader)?;
        let mut read_entry = |(key, value): &(Key, Node)| {
            let name_is_good = reader.check_name(key);
            reader.owner = Some(key.place);
            let value = self.0.read(value, reader).filter(|_| name_is_good);
            Named { name: key.name.clone(), place: key.place, value }
        };
        Some(entries.iter().map(&mut read_entry).collect())
    }

    fn noun(&self) -> String {
        format!("a map from names to {}", self.0.noun().replacen("a map", "maps", 1))
    }

    fn schema(&self) -> Json {
        json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": NAME_PATTERN },
            "additionalProperties": self.0.schema(),
            "maxProperties": self.1,
        })
    }

    fn keys(&self) -> Vec<FieldInfo> {
        self.0.keys()
    }

    fn step(&self) -> &'static str {
        ".<name>"
    }
}

/// The entries of a map from names, at most so many; nothing has none.
pub(crate) fn entries_of<'n>(
    node: &'n Node,
    limit: usize,
    noun: impl FnOnce() -> String,
    reader: &mut Reader<'_>,
) -> Option<&'n [(Key, Node)]> {
    let entries: &[(Key, Node)] = match &node.value {
        Value::Null => &[],
        Value::Map(entries) => entries,
        _ => return reader.expected(node, &noun()),
    };
    if entries.len() > limit {
        let message = format!("{} names are too many here; at most {limit} are allowed", entries.len());
        return reader.error(node.place, message);
    }
    Some(entries)
}

/// A map with a fixed set of keys. Declared with [`record!`].
pub(crate) trait Record: Sized {
    /// The names of its keys.
    fn names() -> Vec<&'static str>;
    /// Its keys, as the schema and the guide tell of them.
    fn fields() -> Vec<FieldInfo>;
    /// Reads every field, whatever is wrong with the others.
    fn read(fields: &Fields<'_>, reader: &mut Reader<'_>) -> Self;
}

/// The shape of a record.
pub(crate) struct Section<T>(PhantomData<T>);

/// The shape of the record `T`.
pub(crate) const fn section<T: Record>() -> Section<T> {
    Section(PhantomData)
}

impl<T: Record> Shape for Section<T> {
    type Out = T;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<T> {
        let owner = reader.owner.take().unwrap_or(node.place);
        let entries: &[(Key, Node)] = match &node.value {
            Value::Null => &[],
            Value::Map(entries) => entries,
            _ => return reader.expected(node, &self.noun()),
        };
        let names = T::names();
        for (key, _) in entries {
            if !names.contains(&key.name.as_str()) {
                reader.unknown_key(key, &names);
            }
        }
        Some(T::read(&Fields { entries, owner }, reader))
    }

    fn noun(&self) -> String {
        format!("a map with {}", either(&T::names(), "and"))
    }

    fn schema(&self) -> Json {
        let fields = T::fields();
        let properties: serde_json::Map<String, Json> =
            fields.iter().map(|field| (field.name.to_owned(), field.schema.clone())).collect();
        let required: Vec<&str> =
            fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        let mut schema = json!({
            "type": if required.is_empty() { json!(["object", "null"]) } else { json!("object") },
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }

    fn keys(&self) -> Vec<FieldInfo> {
        T::fields()
    }
}

/// The entries of a record that is being read.
pub(crate) struct Fields<'a> {
    entries: &'a [(Key, Node)],
    owner: Place,
}

impl Fields<'_> {
    fn find(&self, name: &str) -> Option<&(Key, Node)> {
        self.entries.iter().find(|(key, _)| key.name == name)
    }
}

/// A key as the schema and the guide tell of it.
#[derive(Debug, Clone)]
pub(crate) struct FieldInfo {
    pub(crate) name: &'static str,
    /// One or two sentences.
    pub(crate) doc: String,
    pub(crate) noun: String,
    pub(crate) default: Option<&'static str>,
    pub(crate) required: bool,
    pub(crate) schema: Json,
    pub(crate) keys: Vec<FieldInfo>,
    pub(crate) step: &'static str,
}

/// A field: a shape, and what holds when it is left out.
pub(crate) trait Field {
    type Out;
    fn take(&self, name: &str, fields: &Fields<'_>, reader: &mut Reader<'_>) -> Self::Out;
    fn info(&self, name: &'static str, doc: &str) -> FieldInfo;
}

/// Must be there. `None` after that, or its mistake, has been reported.
pub(crate) struct Required<S>(pub(crate) S);
/// May be left out.
pub(crate) struct Optional<S>(pub(crate) S);
/// Left out, it is this text; so a default is written as a user would write it.
pub(crate) struct Or<S>(pub(crate) S, pub(crate) &'static str);
/// Left out, it is empty: lists, maps and records whose fields all may be left out.
pub(crate) struct OrEmpty<S>(pub(crate) S);

impl<S: Shape> Field for Required<S> {
    type Out = Option<S::Out>;

    fn take(&self, name: &str, fields: &Fields<'_>, reader: &mut Reader<'_>) -> Self::Out {
        match fields.find(name) {
            Some((_, node)) if matches!(node.value, Value::Null) => reader.expected(node, &self.0.noun()),
            Some((_, node)) => self.0.read(node, reader),
            None => reader.error(fields.owner, format!("`{name}` is missing; it takes {}", self.0.noun())),
        }
    }

    fn info(&self, name: &'static str, doc: &str) -> FieldInfo {
        info(&self.0, name, doc, None, true)
    }
}

impl<S: Shape> Field for Optional<S> {
    type Out = Option<S::Out>;

    fn take(&self, name: &str, fields: &Fields<'_>, reader: &mut Reader<'_>) -> Self::Out {
        fields.find(name).and_then(|(_, node)| self.0.read(node, reader))
    }

    fn info(&self, name: &'static str, doc: &str) -> FieldInfo {
        info(&self.0, name, doc, None, false)
    }
}

impl<S: Shape> Field for Or<S> {
    type Out = S::Out;

    fn take(&self, name: &str, fields: &Fields<'_>, reader: &mut Reader<'_>) -> Self::Out {
        let given = fields.find(name).and_then(|(_, node)| self.0.read(node, reader));
        given.unwrap_or_else(|| {
            // A test reads every default of the table.
            Reader::scratch(|scratch| self.0.read(&Node::text(self.1), scratch))
                .expect("a default in the table can be read")
        })
    }

    fn info(&self, name: &'static str, doc: &str) -> FieldInfo {
        info(&self.0, name, doc, Some(self.1), false)
    }
}

impl<S: Shape> Field for OrEmpty<S> {
    type Out = S::Out;

    fn take(&self, name: &str, fields: &Fields<'_>, reader: &mut Reader<'_>) -> Self::Out {
        let given = fields.find(name).and_then(|(key, node)| {
            reader.owner = Some(key.place);
            let value = self.0.read(node, reader);
            reader.owner = None;
            value
        });
        given.unwrap_or_else(|| {
            // Lists, maps and records without required fields read nothing as empty.
            Reader::scratch(|scratch| self.0.read(&Node::null(), scratch)).expect("nothing is read as empty")
        })
    }

    fn info(&self, name: &'static str, doc: &str) -> FieldInfo {
        info(&self.0, name, doc, None, false)
    }
}

fn info<S: Shape>(
    shape: &S,
    name: &'static str,
    doc: &str,
    default: Option<&'static str>,
    required: bool,
) -> FieldInfo {
    let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut schema = shape.schema();
    schema["description"] = json!(doc);
    if let Some(default) = default {
        schema["default"] = default.parse::<u64>().map_or_else(
            |_| match default {
                "true" => json!(true),
                "false" => json!(false),
                text => json!(text),
            },
            |number| json!(number),
        );
    }
    let (noun, keys, step) = (shape.noun(), shape.keys(), shape.step());
    FieldInfo { name, doc, noun, default, required, schema, keys, step }
}

/// Names for a sentence: `a, b or c`.
pub(crate) fn either(names: &[&str], word: &str) -> String {
    match names {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|name| format!("`{name}`")).collect();
            format!("{} {word} `{last}`", most.join(", "))
        }
    }
}

/// One of a few words.
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy> Notation for Choice<T> {
    type Out = T;

    fn parse(&self, text: &str) -> Result<T, Wrong> {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
        self.0.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| Wrong {
            message: format!(
                "expected {}, found `{}`",
                Notation::noun(self),
                gateway_kernel::feed::shown(text)
            ),
            suggestion: closest(text, names.iter().copied()).map(str::to_owned),
            valid: names.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    fn noun(&self) -> String {
        either(&self.0.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "or")
    }

    fn schema(&self) -> Json {
        let names = self.0.iter().map(|(name, _)| match *name {
            "true" => json!(true),
            "false" => json!(false),
            word => json!(word),
        });
        json!({ "enum": names.collect::<Vec<Json>>() })
    }
}

/// Declares a record: a struct, and the table of its fields.
macro_rules! record {
    ($(#[doc = $doc:literal])* $name:ident {
        $($(#[doc = $field_doc:literal])* $field:ident: $type:ty = $shape:expr,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug)]
        pub(crate) struct $name {
            $($(#[doc = $field_doc])* pub(crate) $field: $type,)*
        }

        impl $crate::config::shape::Record for $name {
            fn names() -> Vec<&'static str> {
                vec![$($crate::config::shape::bare(stringify!($field)),)*]
            }

            fn fields() -> Vec<$crate::config::shape::FieldInfo> {
                vec![$($crate::config::shape::Field::info(
                    &$shape,
                    $crate::config::shape::bare(stringify!($field)),
                    concat!($($field_doc, " ",)*),
                ),)*]
            }

            fn read(
                fields: &$crate::config::shape::Fields<'_>,
                reader: &mut $crate::config::reader::Reader<'_>,
            ) -> Self {
                Self {
                    $($field: $crate::config::shape::Field::take(
                        &$shape,
                        $crate::config::shape::bare(stringify!($field)),
                        fields,
                        reader,
                    ),)*
                }
            }
        }
    };
}
pub(crate) use record;

/// A field's name without the mark that a Rust keyword needs.
pub(crate) fn bare(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}
