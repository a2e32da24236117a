//! Schemas, as far as Anthropic can hold a model to them.
//!
//! The schema of a tool's input is advice, and may say anything; that of an answer, and of a tool that is strict, is
//! followed to the letter, and must not have constraints that cannot be. Those move to the description, where the model
//! still reads them, and are a loss: they are not enforced any more.

use std::borrow::Cow;

use crate::json::{self, Node, Object, Value};
use crate::loss::{Losses, What};

/// The schema of a tool without parameters.
const NO_INPUT: &str = r#"{"type":"object","properties":{}}"#;

/// Formats of strings that are enforced.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

/// The schema of a tool's input. As it was written, wherever it can be.
pub(super) fn of_input<'r>(
    schema: Option<&'r str>,
    is_strict: bool,
    at: &str,
    losses: &mut Losses,
) -> Cow<'r, str> {
    let Some(schema) = schema else { return Cow::Borrowed(NO_INPUT) };
    // Nobody but this crate makes schemas that are no JSON.
    let Ok(node) = json::parse(schema.as_bytes()) else { return Cow::Borrowed(schema) };
    let Value::Object(members) = &node.value else { return Cow::Borrowed(NO_INPUT) };
    if is_strict {
        return Cow::Owned(strict(&node, true, Heading::default(), at, losses));
    }
    // At its top it must be an object, and no choice between several.
    let is_choice = |name: &str| matches!(name, "oneOf" | "anyOf" | "allOf");
    let has_type = node.get("type").is_some();
    if has_type && !members.iter().any(|(name, _)| is_choice(name)) {
        return Cow::Borrowed(schema);
    }
    let mut out = Vec::with_capacity(schema.len() + 16);
    json::object(&mut out, |object| {
        if !has_type {
            object.text("type", "object");
        }
        for (name, node) in members {
            if is_choice(name) {
                losses.add(What::SchemaKeyword, format!("{at}.{name}"));
            } else {
                object.raw(name, node.raw);
            }
        }
    });
    text(out)
}

/// What a format is called and what it is for, where that stands beside the schema.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heading<'h> {
    pub(super) name: Option<&'h str>,
    pub(super) description: Option<&'h str>,
}

/// The schema of an answer. Its heading becomes the schema's title and description, which the model reads as well; where
/// the schema has its own, the heading is lost.
pub(super) fn of_answer(schema: &str, heading: Heading<'_>, at: &str, losses: &mut Losses) -> String {
    let Ok(node) = json::parse(schema.as_bytes()) else { return schema.to_owned() };
    let Heading { name, description } = heading;
    for (field, said, own) in
        [("name", name, node.get("title")), ("description", description, node.get("description"))]
    {
        if said.is_some() && own.is_some() && said != own.and_then(Node::as_text) {
            losses.add(What::OutputFormat, format!("format.{field}"));
        }
    }
    strict(&node, false, heading, at, losses)
}

fn strict(node: &Node<'_>, is_input: bool, heading: Heading<'_>, at: &str, losses: &mut Losses) -> String {
    let mut out = Vec::with_capacity(node.raw.len() + 64);
    json::object(&mut out, |object| {
        if is_input && node.get("type").is_none() {
            object.text("type", "object");
        }
        object.some_text("title", heading.name.filter(|_| node.get("title").is_none()));
        rewrite(node, object, heading.description, at, losses);
    });
    text(out).into_owned()
}

fn text(out: Vec<u8>) -> Cow<'static, str> {
    Cow::Owned(String::from_utf8(out).unwrap_or_default())
}

/// Writes the members of a schema that can be enforced. `about` describes it where it does not do so itself.
fn rewrite(node: &Node<'_>, object: &mut Object<'_>, about: Option<&str>, at: &str, losses: &mut Losses) {
    let Value::Object(members) = &node.value else { return };
    let mut description = about;
    let mut advice: Vec<(&str, &str)> = Vec::new();
    for (name, value) in members {
        let path = format!("{at}.{name}");
        match (&**name, &value.value) {
            ("type" | "title" | "enum" | "const" | "$ref" | "required" | "default", _) => {
                object.raw(name, value.raw)
            }
            ("description", Value::Text(text)) => description = Some(&**text),
            ("properties" | "$defs" | "definitions", Value::Object(schemas)) => {
                object.object(name, |object| {
                    for (name, schema) in schemas {
                        schema_field(name, schema, object, &format!("{path}.{name}"), losses);
                    }
                })
            }
            ("items", Value::Object(_) | Value::Bool(_)) => schema_field(name, value, object, &path, losses),
            ("anyOf" | "allOf" | "oneOf", Value::Array(schemas)) => {
                let mut name = &**name;
                if name == "oneOf" && node.get("anyOf").is_none() {
                    // That only one of them matches cannot be enforced; that one of them does can.
                    name = "anyOf";
                    losses.add(What::SchemaKeyword, path.clone());
                }
                object.array(name, |array| {
                    for (index, schema) in schemas.iter().enumerate() {
                        match schema.value {
                            Value::Object(_) => {
                                array.object(|object| {
                                    rewrite(schema, object, None, &format!("{path}[{index}]"), losses)
                                });
                            }
                            _ => array.raw(schema.raw),
                        }
                    }
                });
            }
            ("format", Value::Text(format)) if FORMATS.contains(&&**format) => object.raw(name, value.raw),
            ("minItems", Value::Number("0" | "1")) => object.raw(name, value.raw),
            ("additionalProperties", Value::Bool(false)) | ("$schema" | "$id" | "$comment", _) => {}
            _ => {
                losses.add(What::SchemaKeyword, path);
                // In an object, what is not named is refused, whatever the schema said of it.
                if name != "additionalProperties" {
                    advice.push((name, value.raw));
                }
            }
        }
    }
    // A schema that says nothing of other properties names those that it wants: this is no loss.
    let is_object =
        node.get("type").and_then(Node::as_text) == Some("object") || node.get("properties").is_some();
    if is_object {
        object.boolean("additionalProperties", false);
    }
    describe(object, description, &advice);
}

fn schema_field(name: &str, schema: &Node<'_>, object: &mut Object<'_>, at: &str, losses: &mut Losses) {
    match schema.value {
        Value::Object(_) => object.object(name, |object| rewrite(schema, object, None, at, losses)),
        _ => object.raw(name, schema.raw),
    }
}

fn describe(object: &mut Object<'_>, description: Option<&str>, advice: &[(&str, &str)]) {
    if advice.is_empty() {
        return object.some_text("description", description);
    }
    let listed: Vec<String> = advice.iter().map(|(name, raw)| format!("{name}: {}", dense(raw))).collect();
    let listed = listed.join(", ");
    let whole = match description {
        Some(text) => format!("{text} ({listed})"),
        None => format!("({listed})"),
    };
    object.text("description", &whole);
}

/// JSON without the space between its values.
fn dense(raw: &str) -> String {
    let (mut in_text, mut is_escaped) = (false, false);
    raw.chars()
        .filter(|c| {
            let keeps = in_text || !c.is_ascii_whitespace();
            if *c == '"' && !is_escaped {
                in_text = !in_text;
            }
            is_escaped = *c == '\\' && !is_escaped;
            keeps
        })
        .collect()
}
