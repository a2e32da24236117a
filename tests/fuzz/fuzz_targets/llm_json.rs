//! JSON of LLM APIs is read as serde_json reads it: the same texts, but for names that stand twice, what is nested deep and
//! numbers out of serde_json's range, and the same values. Each value's own text is that value again.
#![no_main]

use std::collections::BTreeSet;

use gateway_llm::invalid::Reason;
use gateway_llm::json::{MAX_DEPTH, Members, Node, Value, parse};
use libfuzzer_sys::fuzz_target;
use serde_json::Value as Other;

fuzz_target!(|bytes: &[u8]| {
    let ours = parse(bytes);
    let theirs = serde_json::from_slice::<Other>(bytes);
    match (&ours, &theirs) {
        (Ok(node), Ok(other)) => assert!(is_same(node, other), "{node:?} {other:?}"),
        (Ok(_), Err(error)) => assert!(error.to_string().contains("number out of range"), "{error}"),
        (Err(error), Ok(other)) => match error.reason {
            Reason::Duplicate | Reason::TooLarge => {}
            _ => panic!("{error}, and serde_json reads {other:?}"),
        },
        (Err(error), Err(_)) => assert!(error.message.contains("line ") && error.path.is_empty()),
    }
    if let (Err(error), Ok(other)) = (&ours, &theirs)
        && error.reason == Reason::TooLarge
    {
        assert!(depth(other) > MAX_DEPTH || bytes.len() > 100_000);
    }
    // Whoever looks at the fields only sees the same ones.
    if let Ok(node) = &ours {
        let members = Members::of(bytes);
        match &node.value {
            Value::Object(fields) => {
                let members = members.expect("it is an object");
                for (name, value) in fields {
                    assert_eq!(members.raw(name), Some(value.raw));
                }
            }
            _ => assert!(members.is_err()),
        }
    }
});

fn is_same(node: &Node<'_>, other: &Other) -> bool {
    match (&node.value, other) {
        (Value::Null, Other::Null) => true,
        (Value::Bool(one), Other::Bool(other)) => one == other,
        (Value::Number(text), Other::Number(other)) => {
            *text == node.raw && serde_json::from_str::<serde_json::Number>(text).is_ok_and(|one| one == *other)
        }
        (Value::Text(one), Other::String(other)) => one == other,
        (Value::Array(items), Other::Array(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(item, other)| is_same(item, other))
        }
        (Value::Object(members), Other::Object(others)) => {
            let names: BTreeSet<&str> = members.iter().map(|(name, _)| &**name).collect();
            names.len() == members.len()
                && members.len() == others.len()
                && members.iter().all(|(name, node)| others.get(&**name).is_some_and(|other| is_same(node, other)))
        }
        _ => false,
    }
}

fn depth(value: &Other) -> usize {
    match value {
        Other::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Other::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
