//! References in scalars: `${NAME}`, `${NAME:-default}`, `${file:PATH}` and `${command: PROGRAM ARGUMENTS}`, replaced once
//! after parsing, so what they stand for can never change the structure of the file.

mod command;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use gateway_kernel::feed::shown;

use crate::config::node::{Node, Scalar, Value};
use crate::config::reader::Reader;

/// Bytes of a file that `${file:…}` names: keys and tokens, not documents.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Bytes that one scalar may have after its references are replaced.
const MAX_EXPANDED_BYTES: usize = 1024 * 1024;

/// Where references are looked up.
pub(crate) struct Sources<'a> {
    /// The environment.
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    /// What relative paths start from.
    pub(crate) base_dir: &'a Path,
}

/// Replaces the references in every scalar below a node. A scalar whose reference leads nowhere is marked
/// as broken, so that it is not called wrong a second time.
pub(crate) fn expand(node: &mut Node, sources: &Sources<'_>, reader: &mut Reader<'_>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| expand(item, sources, reader)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| expand(value, sources, reader)),
        Value::Scalar(scalar) if scalar.text.contains("${") => match replace(&scalar.text, sources) {
            Ok(text) => {
                let written = std::mem::take(&mut scalar.text);
                *scalar = Scalar { text, written: Some(written) };
            }
            Err((part, message)) => {
                reader.error::<()>(reader.within(node.place, part), message);
                node.value = Value::Broken;
            }
        },
        _ => {}
    }
}

/// The text with its references replaced, or the reference that cannot be and why.
fn replace<'t>(text: &'t str, sources: &Sources<'_>) -> Result<String, (&'t str, String)> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        let (before, tail) = rest.split_at(dollar);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &tail[2..];
            continue;
        }
        out.push_str(before);
        let Some(end) = tail.find('}') else {
            return Err((tail, "`${` has no closing brace; write $${ for these two characters".to_owned()));
        };
        let (reference, after) = tail.split_at(end + 1);
        out.push_str(&look_up(&reference[2..end], sources).map_err(|why| (reference, why))?);
        if out.len() > MAX_EXPANDED_BYTES {
            return Err((reference, format!("the value grows beyond {MAX_EXPANDED_BYTES} bytes")));
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn look_up(reference: &str, sources: &Sources<'_>) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        return read_secret(&sources.base_dir.join(path))
            .map_err(|why| format!("cannot read {}: {why}", shown(path)));
    }
    if let Some(command) = reference.strip_prefix("command:") {
        return command::run(command, sources.base_dir);
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let well_formed = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    if !well_formed {
        return Err(format!(
            "`${{{}}}` is not a reference; write ${{NAME}}, ${{NAME:-default}}, ${{file:PATH}} or ${{command: \
             PROGRAM ARGUMENTS}}, and $${{ for the two characters themselves",
            shown(reference)
        ));
    }
    match ((sources.env)(name), default) {
        // As in a shell, `:-` replaces an empty variable, too.
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            Err(format!("the environment has no {}; set it, or write ${{{0}:-default}}", shown(name)))
        }
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    secret(bytes)
}

fn secret(bytes: Vec<u8>) -> Result<String, String> {
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    // Editors and `echo` end a file with a line break that is no part of the secret.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
