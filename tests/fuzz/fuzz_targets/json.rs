//! Fields of a JSON text are found where they stand, and a text in which a name that is looked for stands twice, or stands
//! in another case, is refused: no body goes where a reader of it would not send it. Names are few, so that they meet.
#![no_main]

use gateway::model::Pointer;
use gateway::proxy::fuzzing::fields;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 6] = ["a", "A", "b", "a/b", "~", "0"];
const MAX_DEPTH: usize = 6;

enum Tree {
    Object(Vec<(&'static str, Tree)>),
    Array(Vec<Tree>),
    Leaf(&'static str),
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = fields(text, &[pointer(&["a"]), pointer(&["b", "0"])]);
    }
    let mut bytes = bytes.iter().copied();
    let paths: Vec<Vec<&str>> = (0..3).map(|_| path(&mut bytes)).collect();
    let tree = tree(&mut bytes, 0);
    let mut text = String::new();
    write(&tree, &mut text);
    let pointers: Vec<Pointer> = paths.iter().map(|path| pointer(path)).collect();
    let wanted: Vec<(usize, &[&str])> = paths.iter().map(Vec::as_slice).enumerate().collect();
    let mut found = vec![false; paths.len()];
    let expected = look(&tree, &wanted, &mut found).then_some(found);
    assert_eq!(fields(&text, &pointers), expected, "{paths:?} in {text}");
});

fn pointer(path: &[&str]) -> Pointer {
    let steps = path.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")));
    Pointer::new(&steps.collect::<String>()).expect("a pointer")
}

fn path(bytes: &mut impl Iterator<Item = u8>) -> Vec<&'static str> {
    let length = 1 + usize::from(bytes.next().unwrap_or_default()) % 3;
    (0..length).map(|_| name(bytes)).collect()
}

fn name(bytes: &mut impl Iterator<Item = u8>) -> &'static str {
    NAMES[usize::from(bytes.next().unwrap_or_default()) % NAMES.len()]
}

fn tree(bytes: &mut impl Iterator<Item = u8>, depth: usize) -> Tree {
    let byte = bytes.next().unwrap_or_default();
    let count = usize::from(byte >> 2) % 4;
    match byte % 4 {
        0 | 1 if depth < MAX_DEPTH => {
            Tree::Object((0..count).map(|_| (name(bytes), tree(bytes, depth + 1))).collect())
        }
        2 if depth < MAX_DEPTH => Tree::Array((0..count).map(|_| tree(bytes, depth + 1)).collect()),
        _ => Tree::Leaf(["null", "1.5e3", "\"\\ud83d\\ude00\"", "true"][count]),
    }
}

fn write(tree: &Tree, text: &mut String) {
    match tree {
        Tree::Leaf(leaf) => text.push_str(leaf),
        Tree::Object(members) => {
            text.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                text.push_str(if index > 0 { " , \"" } else { "\"" });
                // The same name, whatever it is written with.
                text.push_str(if index % 2 == 1 && *name == "a" { "\\u0061" } else { name });
                text.push_str("\" :");
                write(value, text);
            }
            text.push('}');
        }
        Tree::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                write(item, text);
            }
            text.push(']');
        }
    }
}

/// Notes which of the paths lead somewhere; `false` if the text is to be refused.
fn look(tree: &Tree, wanted: &[(usize, &[&str])], found: &mut [bool]) -> bool {
    for (index, _) in wanted.iter().filter(|(_, path)| path.is_empty()) {
        found[*index] = true;
    }
    let below = |step: &str| -> Vec<(usize, &[&str])> {
        let leads = wanted.iter().filter(|(_, path)| path.first().is_some_and(|first| *first == step));
        leads.map(|(index, path)| (*index, &path[1..])).collect()
    };
    match tree {
        Tree::Leaf(_) => true,
        Tree::Array(items) => items.iter().enumerate().all(|(index, item)| {
            let below = below(&index.to_string());
            below.is_empty() || look(item, &below, found)
        }),
        Tree::Object(members) => members.iter().enumerate().all(|(index, (name, value))| {
            let below = below(name);
            if below.is_empty() {
                return !wanted
                    .iter()
                    .any(|(_, path)| path.first().is_some_and(|first| first.eq_ignore_ascii_case(name)));
            }
            !members[..index].iter().any(|(other, _)| other == name) && look(value, &below, found)
        }),
    }
}
