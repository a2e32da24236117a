//! Schemas: Google's subset of OpenAPI's, and JSON Schema.
//!
//! Models since Gemini 2.5 take JSON Schema as it is (`parametersJsonSchema`, `responseJsonSchema`), and that is what they
//! are sent: nothing is lost. For older ones a schema is brought into the subset, in which one keyword that is not known is
//! an error: references are put in place, `allOf` is merged, `const` becomes an `enum`, and what the subset has no
//! keyword for is a loss.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::json::{self, Array, Node, Object, Value};
use crate::loss::{Losses, What};
use crate::neutral::Raw;

/// How deep references are followed: a schema that holds itself has no end.
const MAX_DEPTH: usize = 24;

/// How large a schema may become by references, in bytes.
const MAX_BYTES: usize = 1 << 16;

/// Keywords of the subset whose values are passed on as they are.
const PLAIN: [&str; 14] = [
    "title",
    "description",
    "nullable",
    "default",
    "example",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
];

/// Formats that Google knows. Another one is an error there.
const FORMATS: [&str; 6] = ["date-time", "enum", "float", "double", "int32", "int64"];

/// Makes JSON Schema of the subset: types in lower case, and `nullable` as a type. What is JSON Schema already stays as it
/// was written.
pub(super) fn from_subset<'a>(node: &Node<'a>) -> Raw<'a> {
    if !is_of_subset(node) {
        return Cow::Borrowed(node.raw);
    }
    let mut out = Vec::with_capacity(node.raw.len());
    write_json_schema(node, &mut out);
    Cow::Owned(String::from_utf8(out).unwrap_or_default())
}

fn is_of_subset(node: &Node<'_>) -> bool {
    match &node.value {
        Value::Object(members) => members.iter().any(|(name, value)| match name.as_ref() {
            "type" => value.as_text().is_some_and(|text| text.bytes().any(|byte| byte.is_ascii_uppercase())),
            "nullable" | "propertyOrdering" | "property_ordering" | "anyOf" if name != "anyOf" => true,
            _ => is_of_subset(value),
        }),
        Value::Array(items) => items.iter().any(is_of_subset),
        _ => false,
    }
}

fn write_json_schema(node: &Node<'_>, out: &mut Vec<u8>) {
    let Value::Object(members) = &node.value else { return out.extend_from_slice(node.raw.as_bytes()) };
    let is_nullable = node.get("nullable").is_some_and(|node| node.value == Value::Bool(true));
    json::object(out, |object| {
        for (name, value) in members {
            match (&**name, &value.value) {
                ("nullable" | "propertyOrdering" | "property_ordering", _) => {}
                ("type", Value::Text(kind)) if is_nullable => {
                    object.texts("type", &[Cow::Owned(kind.to_ascii_lowercase()), Cow::Borrowed("null")]);
                }
                ("type", Value::Text(kind)) => object.text("type", &kind.to_ascii_lowercase()),
                ("items", _) => object.raw("items", &within(value)),
                ("anyOf" | "any_of", Value::Array(items)) => object.array("anyOf", |array| {
                    items.iter().for_each(|item| array.raw(&within(item)));
                }),
                ("properties", Value::Object(properties)) => object.object("properties", |object| {
                    properties.iter().for_each(|(name, schema)| object.raw(name, &within(schema)));
                }),
                // Google writes these as texts, being of 64 bits.
                (
                    "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties",
                    Value::Text(text),
                ) if text.parse::<u64>().is_ok() => {
                    object.raw(name, text);
                }
                _ => object.raw(name, value.raw),
            }
        }
    });
}

fn within(node: &Node<'_>) -> String {
    let mut out = Vec::new();
    write_json_schema(node, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Brings JSON Schema into the subset.
pub(super) fn to_subset(schema: &str, at: &str, losses: &mut Losses) -> String {
    let Ok(root) = json::parse(schema.as_bytes()) else { return "{}".to_owned() };
    let mut subset = Subset { root: &root, at, losses, bytes: 0 };
    let mut out = Vec::with_capacity(schema.len());
    json::object(&mut out, |object| subset.schema(&root, object, 0));
    String::from_utf8(out).unwrap_or_default()
}

struct Subset<'s, 'a> {
    root: &'s Node<'a>,
    at: &'s str,
    losses: &'s mut Losses,
    /// What references have added.
    bytes: usize,
}

impl<'s, 'a> Subset<'s, 'a> {
    fn lose(&mut self, keyword: &str) {
        self.losses.add(What::SchemaKeyword, format!("{}.{keyword}", self.at));
    }

    /// What a schema says, with its references in place and `allOf` merged.
    fn members(&mut self, node: &'s Node<'a>, depth: usize) -> Vec<(&'s str, &'s Node<'a>)> {
        let Value::Object(members) = &node.value else { return Vec::new() };
        let mut merged: Vec<(&'s str, &'s Node<'a>)> = Vec::new();
        let mut known: HashSet<&'s str> = HashSet::new();
        for (name, value) in members {
            let others = match (&**name, &value.value) {
                ("$ref", Value::Text(place)) => {
                    let Some(there) = self.resolve(place, depth) else {
                        self.lose("$ref");
                        continue;
                    };
                    self.members(there, depth + 1)
                }
                ("allOf", Value::Array(items)) if depth < MAX_DEPTH => {
                    let mut all = Vec::new();
                    for item in items {
                        all.extend(self.members(item, depth + 1));
                    }
                    all
                }
                _ => vec![(&**name, value)],
            };
            for (name, value) in others {
                if known.insert(name) || matches!(name, "properties" | "required") {
                    merged.push((name, value));
                } else if merged.iter().any(|(before, said)| *before == name && said.raw != value.raw) {
                    // Two of one kind cannot both be said; what stands nearer counts.
                    self.lose(name);
                }
            }
        }
        merged
    }

    fn resolve(&mut self, place: &str, depth: usize) -> Option<&'s Node<'a>> {
        if depth >= MAX_DEPTH {
            return None;
        }
        let mut node = self.root;
        for step in place.strip_prefix("#")?.split('/').skip(1) {
            node = node.get(&step.replace("~1", "/").replace("~0", "~"))?;
        }
        self.bytes += node.raw.len();
        (self.bytes <= MAX_BYTES).then_some(node)
    }

    fn schema(&mut self, node: &'s Node<'a>, object: &mut Object<'_>, depth: usize) {
        let members = self.members(node, depth);
        let by_name: HashMap<&str, &'s Node<'a>> = members.iter().rev().copied().collect();
        let find = |name: &str| by_name.get(name).copied();
        let has_values =
            find("enum").is_some() || find("const").is_some_and(|value| value.as_text().is_some());
        self.kind(find("type"), find("items").is_some(), find("properties").is_some(), has_values, object);
        let has_null = is_nullable(find("type")) || find("enum").is_some_and(holds_null);
        if find("nullable").is_none() && has_null {
            object.boolean("nullable", true);
        }
        let mut required: Vec<&str> = Vec::new();
        let mut properties: Vec<(&str, &Node<'_>)> = Vec::new();
        for &(name, value) in &members {
            match (name, &value.value) {
                ("type" | "$schema" | "$id" | "$defs" | "definitions" | "$comment" | "strict", _) => {}
                // Said by each schema anew, and to no effect here.
                ("additionalProperties", Value::Bool(_)) => {}
                ("const", _) => self.values(std::slice::from_ref(value), object),
                // Whoever says both means the one that is narrower.
                ("enum", Value::Array(_)) if find("const").is_some() => {}
                ("enum", Value::Array(items)) => self.values(items, object),
                ("format", Value::Text(format)) if FORMATS.contains(&&**format) => {
                    object.text("format", format)
                }
                ("properties", Value::Object(more)) => {
                    properties.extend(more.iter().map(|(name, schema)| (&**name, schema)));
                }
                ("required", Value::Array(items)) => required.extend(items.iter().filter_map(Node::as_text)),
                ("items", Value::Object(_)) => self.nested("items", value, object, depth),
                ("oneOf", Value::Array(_)) if find("anyOf").is_some() => self.lose("oneOf"),
                ("anyOf" | "oneOf", Value::Array(items)) => {
                    if name == "oneOf" {
                        self.lose("oneOf");
                    }
                    object.array("anyOf", |array| {
                        items.iter().for_each(|item| self.item(item, array, depth));
                    });
                }
                (known, _) if PLAIN.contains(&known) => object.raw(known, value.raw),
                (unknown, _) => self.lose(unknown),
            }
        }
        let is_array = find("type").is_some_and(|kind| first_kind(kind) == Some("array"));
        if is_array && !matches!(find("items").map(|node| &node.value), Some(Value::Object(_))) {
            object.object("items", |_| {});
        }
        self.properties(&properties, &required, object, depth);
    }

    fn properties(
        &mut self,
        properties: &[(&str, &'s Node<'a>)],
        required: &[&str],
        object: &mut Object<'_>,
        depth: usize,
    ) {
        if !properties.is_empty() {
            object.object("properties", |object| {
                let mut before = HashSet::new();
                for (name, schema) in properties {
                    if before.insert(*name) {
                        self.nested(name, schema, object, depth);
                    } else {
                        self.lose("allOf");
                    }
                }
            });
        }
        // One that no property has is an error there.
        let mut there: HashSet<&str> = properties.iter().map(|(name, _)| *name).collect();
        let required: Vec<Cow<'_, str>> =
            required.iter().filter(|name| there.remove(**name)).map(|name| Cow::Borrowed(*name)).collect();
        if !required.is_empty() {
            object.texts("required", &required);
        }
    }

    fn nested(&mut self, name: &str, node: &'s Node<'a>, object: &mut Object<'_>, depth: usize) {
        object.object(name, |object| {
            if depth < MAX_DEPTH { self.schema(node, object, depth + 1) } else { self.lose("$ref") }
        });
    }

    fn item(&mut self, node: &'s Node<'a>, array: &mut Array<'_>, depth: usize) {
        array.object(|object| {
            if depth < MAX_DEPTH { self.schema(node, object, depth + 1) } else { self.lose("$ref") }
        });
    }

    /// Values to choose from: texts only, here.
    fn values(&mut self, values: &[Node<'_>], object: &mut Object<'_>) {
        let texts: Vec<Cow<'_, str>> = values
            .iter()
            .filter(|value| value.value != Value::Null)
            .map(|value| value.as_text().map_or(Cow::Borrowed(value.raw), Cow::Borrowed))
            .collect();
        if values.iter().any(|value| value.as_text().is_none() && value.value != Value::Null) {
            self.lose("enum");
        } else {
            object.texts("enum", &texts);
        }
    }

    fn kind(
        &mut self,
        kind: Option<&Node<'_>>,
        has_items: bool,
        has_properties: bool,
        has_values: bool,
        object: &mut Object<'_>,
    ) {
        let name = match kind.map(|node| &node.value) {
            Some(Value::Text(kind)) => Some(kind.to_string()),
            Some(Value::Array(kinds)) => {
                let mut kinds = kinds.iter().filter_map(Node::as_text).filter(|kind| *kind != "null");
                let first = kinds.next().map(str::to_owned);
                if kinds.next().is_some() {
                    self.lose("type");
                }
                first
            }
            _ if has_properties => Some("object".to_owned()),
            _ if has_items => Some("array".to_owned()),
            // Google wants to be told the type of what it may choose from, which are texts.
            _ if has_values => Some("string".to_owned()),
            _ => None,
        };
        if let Some(name) = name {
            object.text("type", &name.to_ascii_uppercase());
        }
    }
}

/// The type of a schema; of several the first that is not `null`.
fn first_kind<'n>(kind: &'n Node<'_>) -> Option<&'n str> {
    match &kind.value {
        Value::Text(kind) => Some(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Node::as_text).find(|kind| *kind != "null"),
        _ => None,
    }
}

fn holds_null(values: &Node<'_>) -> bool {
    matches!(&values.value, Value::Array(items) if items.iter().any(|item| item.value == Value::Null))
}

fn is_nullable(kind: Option<&Node<'_>>) -> bool {
    match kind.map(|node| &node.value) {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind.as_text() == Some("null")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Schemas, right and wrong, that refer to themselves and to what is not there.
    fn schemas() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("{}".to_owned()),
            Just("true".to_owned()),
            Just(r#"{"type":["string","null"],"format":"uri","minLength":1}"#.to_owned()),
            Just(r##"{"$ref":"#"}"##.to_owned()),
            Just(r##"{"$ref":"#/properties/a"}"##.to_owned()),
            Just(r##"{"$ref":"#/nowhere"}"##.to_owned()),
            Just(r#"{"enum":["a",null,1]}"#.to_owned()),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            let some = proptest::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                (some.clone(), any::<bool>()).prop_map(|(items, is_all)| {
                    let name = if is_all { "allOf" } else { "anyOf" };
                    format!(r#"{{"{name}":[{}],"oneOf":[{}]}}"#, items.join(","), items.join(","))
                }),
                some.prop_map(|items| {
                    let fields: Vec<String> = items
                        .iter()
                        .zip(["a", "b", "type", "c"])
                        .map(|(item, name)| format!("\"{name}\":{item}"))
                        .collect();
                    format!(
                        r#"{{"type":"object","properties":{{{}}},"required":["a","x","a"],"x":1}}"#,
                        fields.join(",")
                    )
                }),
                inner.prop_map(|item| format!(r#"{{"type":"array","items":{item},"uniqueItems":true}}"#)),
            ]
        })
    }

    /// Whether a schema has keywords of the subset only.
    fn is_subset(node: &Node<'_>) -> bool {
        let Value::Object(members) = &node.value else { return false };
        members.iter().all(|(name, value)| match (&**name, &value.value) {
            ("properties", Value::Object(properties)) => {
                properties.iter().all(|(_, schema)| is_subset(schema))
            }
            ("items", _) => is_subset(value),
            ("anyOf", Value::Array(items)) => items.iter().all(is_subset),
            ("type" | "enum" | "required" | "format", _) => true,
            (known, _) => PLAIN.contains(&known),
        })
    }

    proptest! {
        /// One keyword outside of the subset is an error at Google; a name that stands twice is one everywhere.
        #[test]
        fn what_is_written_is_of_the_subset(schema in schemas()) {
            let subset = to_subset(&schema, "s", &mut Losses::default());
            let node = json::parse(subset.as_bytes());
            prop_assert!(node.as_ref().is_ok_and(is_subset), "{schema}\n{subset}\n{node:?}");
        }
    }

    #[test]
    fn the_subset_becomes_json_schema() {
        for (name, subset, expected) in [
            (
                "types",
                r#"{"type":"OBJECT","properties":{"type":{"type":"STRING"}}}"#,
                r#"{"type":"object","properties":{"type":{"type":"string"}}}"#,
            ),
            ("nullable", r#"{"type":"STRING","nullable":true}"#, r#"{"type":["string","null"]}"#),
            (
                "counts",
                r#"{"type":"ARRAY","maxItems":"3","items":{"type":"NUMBER"}}"#,
                r#"{"type":"array","maxItems":3,"items":{"type":"number"}}"#,
            ),
            ("order", r#"{"type":"OBJECT","propertyOrdering":["a"]}"#, r#"{"type":"object"}"#),
            ("what is JSON Schema", r#"{ "type": "object" }"#, r#"{ "type": "object" }"#),
        ] {
            let node = json::parse(subset.as_bytes()).unwrap();
            assert_eq!(from_subset(&node), expected, "{name}");
        }
    }

    #[test]
    fn json_schema_is_brought_into_the_subset() {
        for (name, schema, expected, lost) in [
            ("types", r#"{"type":["string","null"]}"#, r#"{"type":"STRING","nullable":true}"#, ""),
            ("const", r#"{"const":"a"}"#, r#"{"type":"STRING","enum":["a"]}"#, ""),
            (
                "formats",
                r#"{"anyOf":[{"format":"date-time"},{"format":"uri"}]}"#,
                r#"{"anyOf":[{"format":"date-time"},{}]}"#,
                "schema_keyword;at=\"s.format\"",
            ),
            (
                "null among values",
                r#"{"enum":["a",null]}"#,
                r#"{"type":"STRING","nullable":true,"enum":["a"]}"#,
                "",
            ),
            ("const and enum", r#"{"const":"a","enum":["a","b"]}"#, r#"{"type":"STRING","enum":["a"]}"#, ""),
            (
                "any and one of",
                r#"{"anyOf":[{"type":"string"}],"oneOf":[{}]}"#,
                r#"{"anyOf":[{"type":"STRING"}]}"#,
                "schema_keyword;at=\"s.oneOf\"",
            ),
            (
                "an array or null",
                r#"{"type":["array","null"]}"#,
                r#"{"type":"ARRAY","nullable":true,"items":{}}"#,
                "",
            ),
            ("an array", r#"{"type":"array"}"#, r#"{"type":"ARRAY","items":{}}"#, ""),
            (
                "unknown",
                r#"{"type":"object","if":{},"additionalProperties":false}"#,
                r#"{"type":"OBJECT"}"#,
                "schema_keyword;at=\"s.if\"",
            ),
            (
                "a reference",
                r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/b"}},"required":["a","x"],"$defs":{"b":{"type":"string"}}}"##,
                r#"{"type":"OBJECT","properties":{"a":{"type":"STRING"}},"required":["a"]}"#,
                "",
            ),
            (
                "all of",
                r#"{"allOf":[{"type":"object","properties":{"a":{}}},{"properties":{"b":{}},"required":["b"]}]}"#,
                r#"{"type":"OBJECT","properties":{"a":{},"b":{}},"required":["b"]}"#,
                "",
            ),
        ] {
            let mut losses = Losses::default();
            assert_eq!(to_subset(schema, "s", &mut losses), expected, "{name}");
            assert_eq!(losses.to_string(), lost, "{name}");
        }
    }

    #[test]
    fn a_schema_that_holds_itself_ends() {
        let schema = r##"{"type":"object","properties":{"a":{"$ref":"#"},"b":{"$ref":"#"}}}"##;
        let mut losses = Losses::default();
        let subset = to_subset(schema, "s", &mut losses);
        assert!(losses.has(What::SchemaKeyword));
        assert!(subset.len() < 16 * MAX_BYTES, "{}", subset.len());
        let itself = r##"{"$ref":"#"}"##;
        assert_eq!(to_subset(itself, "s", &mut losses), "{}");
    }
}
