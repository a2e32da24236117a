//! What ties a request to the deployment that answered before, read without reading the request.

use memchr::memmem;

use crate::json::Members;

/// What a request goes on from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affinity {
    /// The response before it.
    pub previous_response_id: Option<String>,
    /// The conversation that it belongs to.
    pub conversation: Option<String>,
    /// Whether it brings thoughts that a provider of this dialect encrypted: only an account that shares its keys reads
    /// them.
    pub has_encrypted_content: bool,
}

/// Reads what a request goes on from. A body that is no request goes on from nothing: what is wrong with it is said
/// where it is read.
#[must_use]
pub fn affinity(body: &[u8]) -> Affinity {
    let Ok(members) = Members::of(body) else { return Affinity::default() };
    let conversation = members.get("conversation").and_then(|node| {
        let id = node.as_text().or_else(|| node.get("id").and_then(|id| id.as_text()));
        id.map(str::to_owned)
    });
    Affinity {
        previous_response_id: members.text("previous_response_id").ok().flatten().map(|id| id.into_owned()),
        conversation,
        has_encrypted_content: members.raw("input").is_some_and(has_encrypted),
    }
}

/// Whether some item has content that this dialect's provider encrypted. The name cannot stand in a string with its
/// quotes, which would be escaped there.
fn has_encrypted(input: &str) -> bool {
    const NAME: &[u8] = b"\"encrypted_content\"";
    let input = input.as_bytes();
    memmem::find_iter(input, NAME).any(|at| {
        let mut rest = input[at + NAME.len()..].iter().copied().filter(|byte| !byte.is_ascii_whitespace());
        if rest.next() != Some(b':') || rest.next() != Some(b'"') {
            return false;
        }
        let value: Vec<u8> = rest.take(16).collect();
        let is_foreign =
            [&b"gw1."[..], b"for-previous:", b"redacted:"].iter().any(|mark| value.starts_with(mark));
        !is_foreign && value.first() != Some(&b'"')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_goes_on_from() {
        let none = Affinity::default();
        let previous = Affinity { previous_response_id: Some("resp_1".to_owned()), ..none.clone() };
        let conversation = Affinity { conversation: Some("conv_1".to_owned()), ..none.clone() };
        let encrypted = Affinity { has_encrypted_content: true, ..none.clone() };
        for (name, body, expected) in [
            ("nothing", r#"{"model":"m","input":"previous_response_id"}"#, &none),
            ("no JSON", "{", &none),
            ("no object", "[]", &none),
            ("null", r#"{"previous_response_id":null}"#, &none),
            ("a response", r#"{"input":[],"previous_response_id":"resp_1"}"#, &previous),
            ("not its own", r#"{"metadata":{"previous_response_id":"resp_1"}}"#, &none),
            ("a conversation", r#"{"conversation":"conv_1"}"#, &conversation),
            ("a conversation's object", r#"{"conversation":{"id":"conv_1"}}"#, &conversation),
            ("thoughts", r#"{"input":[{"type":"reasoning","encrypted_content" : "gAAA"}]}"#, &encrypted),
            ("thoughts without", r#"{"input":[{"type":"reasoning","encrypted_content":null}]}"#, &none),
            ("empty", r#"{"input":[{"encrypted_content":""}]}"#, &none),
            ("another's", r#"{"input":[{"encrypted_content":"gw1.gemini.x"}]}"#, &none),
            (
                "another's of a call",
                r#"{"input":[{"encrypted_content":"for-previous:gw1.gemini.x"}]}"#,
                &none,
            ),
            ("in a text", r#"{"input":"\"encrypted_content\":\"x\""}"#, &none),
            (
                "one of two",
                r#"{"input":[{"encrypted_content":"gw1.a.b"},{"encrypted_content":"x"}]}"#,
                &encrypted,
            ),
        ] {
            assert_eq!(affinity(body.as_bytes()), *expected, "{name}");
        }
    }
}
