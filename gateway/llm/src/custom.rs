//! Tools whose input is text (OpenAI's custom tools, as Codex' `apply_patch`) where a target takes JSON only.
//!
//! Such a tool becomes a function of one string, [`FIELD`], and keeps its name, so that prompts which speak of it stay
//! right. A mark in the name was rejected for that reason: who wrote the answer cannot tell what the tool was, but who
//! asked can, so encoders of answers look it up in what is left of the request.

use std::borrow::Cow;

use crate::json::{self, Value, object};

/// The one parameter.
pub const FIELD: &str = "input";

/// The schema of such a function.
pub const SCHEMA: &str = r#"{"type":"object","properties":{"input":{"type":"string","description":"The whole input of the tool, as plain text."}},"required":["input"],"additionalProperties":false}"#;

/// The arguments of a call that has this input.
#[must_use]
pub fn arguments(input: &str) -> String {
    let mut out = Vec::with_capacity(input.len() + 16);
    object(&mut out, |object| object.text(FIELD, input));
    String::from_utf8(out).unwrap_or_default()
}

/// The input of a call that has these arguments. A model that wrote no such object meant what it wrote.
#[must_use]
pub fn input(arguments: &str) -> Cow<'_, str> {
    let parsed = json::parse(arguments.as_bytes()).ok().map(|node| node.value);
    match parsed {
        Some(Value::Object(members)) => members
            .into_iter()
            .find_map(|(name, node)| match node.value {
                Value::Text(text) if name == FIELD => Some(text),
                _ => None,
            })
            .unwrap_or(Cow::Borrowed(arguments)),
        Some(Value::Text(text)) => text,
        _ => Cow::Borrowed(arguments),
    }
}

/// What such a function is for: a grammar, which no function has a field for, is told in words.
#[must_use]
pub fn description<'d>(description: Option<&'d str>, format: Option<&str>) -> Option<Cow<'d, str>> {
    let grammar = format.and_then(|raw| json::parse(raw.as_bytes()).ok());
    let said = grammar.as_ref().and_then(|node| {
        // Chat Completions has one object more around it.
        let node = node.get("grammar").unwrap_or(node);
        Some((node.get("syntax")?.as_text()?, node.get("definition")?.as_text()?))
    });
    match (description, said) {
        (text, None) => text.map(Cow::Borrowed),
        (text, Some((syntax, definition))) => {
            let text = text.map_or(String::new(), |text| format!("{text}\n\n"));
            let kind = if syntax == "regex" { "regular expression" } else { "Lark grammar" };
            Some(Cow::Owned(format!("{text}`{FIELD}` must match this {kind}:\n{definition}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn inputs_are_found() {
        for (name, arguments, expected) in [
            ("the object", r#"{"input":"a\nb"}"#, "a\nb"),
            ("more in it", r#"{"x":1,"input":"a"}"#, "a"),
            ("a string", r#""a\"b""#, "a\"b"),
            ("no JSON", "*** Begin Patch", "*** Begin Patch"),
            ("another object", r#"{"patch":"a"}"#, r#"{"patch":"a"}"#),
            ("no string", r#"{"input":1}"#, r#"{"input":1}"#),
            ("nothing", "", ""),
        ] {
            assert_eq!(input(arguments), expected, "{name}");
        }
    }

    #[test]
    fn grammars_are_told() {
        let lark = r#"{"type":"grammar","syntax":"lark","definition":"start: \"a\""}"#;
        let chat = r#"{"type":"grammar","grammar":{"syntax":"regex","definition":"a+"}}"#;
        for (text, format, expected) in [
            (None, None, None),
            (Some("Edits."), Some(r#"{"type":"text"}"#), Some("Edits.")),
            (
                Some("Edits."),
                Some(lark),
                Some("Edits.\n\n`input` must match this Lark grammar:\nstart: \"a\""),
            ),
            (None, Some(chat), Some("`input` must match this regular expression:\na+")),
        ] {
            assert_eq!(description(text, format).as_deref(), expected);
        }
    }

    proptest! {
        #[test]
        fn inputs_come_back(text in ".*") {
            let arguments = arguments(&text);
            prop_assert_eq!(input(&arguments), text);
        }
    }
}
