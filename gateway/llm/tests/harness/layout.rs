//! How outputs are laid out, and shown where they differ.

use std::fmt::Write as _;

use gateway_llm::json::{Node, Value, parse, quoted};

/// How many lines of a text are shown.
const SHOWN: usize = 60;

/// JSON with a line for each value. Numbers, and the order of fields, stay as they are.
pub(crate) fn pretty(json: &[u8]) -> Result<String, String> {
    let node = parse(json).map_err(|error| format!("{error}:\n{}", String::from_utf8_lossy(json)))?;
    let mut out = String::new();
    write(&mut out, &node, 0);
    out.push('\n');
    Ok(out)
}

fn write(out: &mut String, node: &Node<'_>, depth: usize) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str("  "));
    };
    match &node.value {
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                line(out, depth + 1);
                write(out, item, depth + 1);
            }
            line(out, depth);
            out.push(']');
        }
        Value::Object(members) if !members.is_empty() => {
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                line(out, depth + 1);
                out.push_str(&quoted(name));
                out.push_str(": ");
                write(out, value, depth + 1);
            }
            line(out, depth);
            out.push('}');
        }
        _ => out.push_str(node.raw),
    }
}

/// The beginning of a text.
pub(crate) fn shorten(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().take(SHOWN).map(|line| format!("  {line}")).collect();
    if text.lines().count() > SHOWN {
        lines.push("  …".to_owned());
    }
    lines.join("\n")
}

/// What changed between two texts: what stands between the lines that both begin and end with, with a few lines around.
pub(crate) fn difference(known: &str, found: &str) -> String {
    const AROUND: usize = 3;
    let (old, new): (Vec<&str>, Vec<&str>) = (known.lines().collect(), found.lines().collect());
    let before = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let rest = old.len().min(new.len()) - before;
    let after = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(old, new)| old == new).count();
    let mut out = String::new();
    let mut show = |mark: char, lines: &[&str]| {
        lines.iter().take(SHOWN).for_each(|line| {
            let _ = writeln!(out, "{mark} {line}");
        });
    };
    show(' ', &old[before.saturating_sub(AROUND)..before]);
    show('-', &old[before..old.len() - after]);
    show('+', &new[before..new.len() - after]);
    show(' ', &old[old.len() - after..(old.len() - after + AROUND).min(old.len())]);
    if old == new {
        out.push_str("(only in the end of the last line)");
    }
    out
}
