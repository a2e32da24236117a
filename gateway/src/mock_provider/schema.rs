//! JSON Schema, as far as the mock needs it: a value that fits one, and the subset that Gemini takes.

use serde_json::{Map, Value, json};

use super::checks::{Checked, Object, Problem, What, wrong};

/// Schemas that refer to themselves end here.
const DEEPEST: usize = 12;

/// A value that fits a schema, the same one each time. `root` is where references lead.
pub(super) fn example(schema: &Value, root: &Value, unicode: bool, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Null;
    }
    let next = |schema: &Value| example(schema, root, unicode, depth + 1);
    if let Some(target) = schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#')))
    {
        return next(target);
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    if let Some(first) = ["anyOf", "oneOf"].iter().find_map(|key| schema[key].get(0)) {
        return next(first);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let objects = parts.iter().map(next).filter_map(|value| value.as_object().cloned());
        return Value::Object(objects.flatten().collect());
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].get(0)?.as_str()).unwrap_or_default();
    match kind.to_ascii_lowercase().as_str() {
        "object" => object(schema, next),
        "" if schema.get("properties").is_some() => object(schema, next),
        "array" => {
            let count = schema["minItems"].as_u64().unwrap_or(2).clamp(1, 8);
            let items = schema.get("items").unwrap_or(&Value::Null);
            Value::Array((0..count).map(|_| next(items)).collect())
        }
        "integer" => json!(schema["minimum"].as_i64().unwrap_or(7)),
        "number" => json!(schema["minimum"].as_f64().unwrap_or(1.5)),
        "boolean" => Value::Bool(true),
        "null" => Value::Null,
        _ if unicode => json!("Zürich 東京 🌍"),
        _ => json!("Paris"),
    }
}

fn object(schema: &Value, next: impl Fn(&Value) -> Value) -> Value {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    Value::Object(properties.iter().map(|(name, schema)| (name.clone(), next(schema))).collect::<Map<_, _>>())
}

/// What Gemini's `Schema` has, in the spelling of its messages.
const GEMINI: [&str; 22] = [
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "maxItems",
    "minItems",
    "properties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "propertyOrdering",
    "default",
    "items",
    "minimum",
    "maximum",
];

/// Checks a schema against the subset that Gemini takes.
pub(super) fn check_gemini(schema: &Value, at: &str, depth: usize) -> Checked {
    if depth > 32 {
        return wrong(at, "The schema is nested too deeply.");
    }
    let object = Object::of(schema, at)?;
    let camel = |key: &str| super::gemini::camel(key);
    if let Some(key) = object.keys().find(|key| !GEMINI.contains(&camel(key).as_str())) {
        return Err(Problem { at: object.place(key), what: What::Unknown });
    }
    let kind = match object.get("type") {
        None => String::new(),
        Some(Value::String(kind)) => kind.to_ascii_uppercase(),
        Some(_) => {
            return wrong(&object.place("type"), "Proto field is not repeating, cannot start list.");
        }
    };
    if !["", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL", "TYPE_UNSPECIFIED"]
        .contains(&kind.as_str())
    {
        let sentence = format!(
            "Invalid value at '{at}.type' (type.googleapis.com/google.ai.generativelanguage.v1beta.Type), \"{kind}\""
        );
        return wrong(&object.place("type"), sentence);
    }
    if kind == "ARRAY" && object.get("items").is_none() {
        return wrong(at, format!("* GenerateContentRequest.{at}.items: missing field.\n"));
    }
    if object.get("enum").is_some() && kind != "STRING" {
        return wrong(at, format!("* GenerateContentRequest.{at}.enum: only allowed for STRING type\n"));
    }
    let properties = object.object("properties")?;
    for name in object.texts("required")? {
        if properties.as_ref().is_none_or(|properties| properties.get(&name).is_none()) {
            return wrong(
                at,
                format!("* GenerateContentRequest.{at}.required[0]: property is not defined\n"),
            );
        }
    }
    if let Some(properties) = properties {
        for name in properties.keys() {
            if let Some(schema) = properties.get(name) {
                check_gemini(schema, &properties.place(name), depth + 1)?;
            }
        }
    }
    if let Some(items) = object.get("items") {
        check_gemini(items, &object.place("items"), depth + 1)?;
    }
    for (place, schema) in object.list(if object.get("anyOf").is_some() { "anyOf" } else { "any_of" })? {
        check_gemini(schema, &place, depth + 1)?;
    }
    Ok(())
}

/// What OpenAI asks of a schema that is enforced: every property required, and no others.
pub(super) fn check_strict(schema: &Value, at: &str, what: &str, depth: usize) -> Checked {
    if depth > 32 {
        return wrong(at, "The schema is nested too deeply.");
    }
    let say = |why: String| wrong(at, format!("Invalid schema for {what}: In context=(), {why}."));
    if schema["type"] == "object" {
        if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
            return say("'additionalProperties' is required to be supplied and to be false".to_owned());
        }
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        if let Some(name) = properties.keys().find(|name| !required.contains(&json!(name))) {
            return say(format!(
                "'required' is required to be supplied and to be an array including every key in properties. \
                 Missing '{name}'"
            ));
        }
        for schema in properties.values() {
            check_strict(schema, at, what, depth + 1)?;
        }
    }
    schema.get("items").map_or(Ok(()), |items| check_strict(items, at, what, depth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples() {
        let cases = [
            (
                json!({"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "INTEGER"}}}),
                json!({"city": "Paris", "n": 7}),
            ),
            (json!({"type": ["string", "null"], "enum": ["c", "f"]}), json!("c")),
            (json!({"type": "array", "items": {"type": "boolean"}, "minItems": 1}), json!([true])),
            (json!({"$defs": {"a": {"const": 3}}, "$ref": "#/$defs/a"}), json!(3)),
            (json!({"allOf": [{"properties": {"a": {"type": "null"}}}]}), json!({"a": null})),
        ];
        for (schema, expected) in cases {
            assert_eq!(example(&schema, &schema, false, 0), expected, "{schema}");
        }
        let endless = json!({"properties": {"next": {"$ref": "#"}}});
        assert!(example(&endless, &endless, false, 0).is_object());
    }

    #[test]
    fn the_subset_of_gemini() {
        let cases = [
            (
                json!({"type": "OBJECT", "properties": {"a": {"type": "string", "min_length": 1}}, "required": ["a"]}),
                true,
            ),
            (json!({"type": "object", "additionalProperties": false}), false),
            (json!({"type": "object", "properties": {"a": {"$ref": "#"}}}), false),
            (json!({"type": ["string", "null"]}), false),
            (json!({"type": "array"}), false),
            (json!({"type": "array", "items": {"type": "integer", "enum": [1]}}), false),
            (json!({"type": "object", "required": ["a"]}), false),
            (json!({"anyOf": [{"const": 1}]}), false),
            (json!({"type": "text"}), false),
        ];
        for (schema, fits) in cases {
            assert_eq!(check_gemini(&schema, "s", 0).is_ok(), fits, "{schema}");
        }
    }
}
