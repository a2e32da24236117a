//! A text that fields are read from is JSON for serde_json, too, and has the same fields at the same places: no body goes
//! where a reader of it would not send it.
#![no_main]

use gateway::model::Pointer;
use gateway::proxy::fuzzing::fields;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: (Vec<String>, &str)| {
    let (names, text) = input;
    let written = names.iter().take(8).map(|name| format!("/{name}"));
    let pointers: Vec<Pointer> = written.filter_map(|pointer| Pointer::new(&pointer).ok()).collect();
    let found = fields(text, &pointers);
    // Numbers that are too large for it, in what nobody asked for, are none of ours.
    let Ok(whole) = serde_json::from_str::<Value>(text) else { return };
    let Some(found) = found else { return };
    for (pointer, is_there) in pointers.iter().zip(found) {
        assert_eq!(whole.pointer(&pointer.to_string()).is_some(), is_there, "{pointer} in {text:?}");
    }
});
