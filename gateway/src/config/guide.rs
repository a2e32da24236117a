//! The table of keys, told: as a JSON Schema for editors, as Markdown for the guide.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::config::keys::Root;
use crate::config::shape::{FieldInfo, Record as _, Shape as _, section};

/// The configuration's JSON Schema (draft 2020-12).
pub fn schema() -> Json {
    let mut schema = section::<Root>().schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("gateway configuration");
    schema["$defs"] = json!({
        "reference": {
            "description": "a value from the environment or a file: ${NAME}, ${NAME:-default}, ${file:PATH}",
            "type": "string",
            "pattern": "\\$\\{[^}]*\\}",
        },
    });
    schema
}

/// The keys as a Markdown table: path, what it takes, default, and what it is for.
pub fn reference() -> String {
    let mut out = String::from("| key | takes | default | |\n|---|---|---|---|\n");
    for field in Root::fields() {
        rows(&field, "", &mut out);
    }
    out
}

fn rows(field: &FieldInfo, prefix: &str, out: &mut String) {
    let path = format!("{prefix}{}", field.name);
    let default = match (field.required, field.default) {
        (true, _) => "required".to_owned(),
        (false, Some(default)) => format!("`{default}`"),
        (false, None) => "none".to_owned(),
    };
    let _ = writeln!(out, "| `{path}` | {} | {default} | {} |", field.noun, field.doc);
    for key in &field.keys {
        rows(key, &format!("{path}{}.", field.step), out);
    }
}
