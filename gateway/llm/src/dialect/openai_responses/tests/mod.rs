//! What must hold of this dialect, whatever is said in it.

mod replies;
mod requests;
mod streams;

use proptest::prelude::*;
use serde_json::{Value, json};

/// Texts with what JSON must escape in them.
fn text() -> impl Strategy<Value = String> {
    "[a-z \"\\\\\n\u{e9}\u{1f600}]{0,12}"
}

fn word() -> impl Strategy<Value = String> {
    "[a-z]{1,8}"
}

/// JSON with pieces missing, doubled or of another type.
fn mutated(value: Value, changes: &[(usize, usize)]) -> String {
    let mut value = value;
    for (which, how) in changes {
        let mut count = 0;
        walk(&mut value, &mut |node| {
            count += 1;
            if count % 23 == which % 23 {
                *node = match how % 7 {
                    0 => Value::Null,
                    1 => json!(1.5),
                    2 => json!("x"),
                    3 => json!([node.clone()]),
                    4 => json!({"type": "message", "x": node.clone()}),
                    5 => json!(true),
                    _ => json!([]),
                };
            }
        });
    }
    value.to_string()
}

fn walk(value: &mut Value, visit: &mut impl FnMut(&mut Value)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, visit)),
        Value::Object(members) => members.values_mut().for_each(|member| walk(member, visit)),
        _ => {}
    }
    visit(value);
}
