//! What users write, lowered once into [`crate::model`]: one YAML file, read with every mistake in it
//! reported at its place. Nothing outside of this module sees a configuration before it is a model.

mod capacity;
mod guide;
mod keys;
mod lists;
mod lower;
mod matching;
mod node;
mod notation;
mod reader;
mod reference;
mod report;
mod routes;
mod shape;
#[cfg(test)]
mod tests;
mod upstream_keys;
mod upstreams;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::config::keys::Root;
use crate::config::node::Node;
use crate::config::reader::Reader;
use crate::config::reference::Sources;
use crate::config::shape::{Shape as _, section};
use crate::model::Model;

pub use guide::{reference, schema};
pub(crate) use lists::{column_of, is_own_list};
pub use report::{Diagnostic, MAX_DIAGNOSTICS, Report};

/// Bytes of a configuration file.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one of its lines: a report repeats whole lines.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Reads the configuration in a file, and the list files it names relative to its directory.
///
/// # Errors
/// Every mistake that is found.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Model, Report> {
    let origin = path.display().to_string();
    let of_file = |message: String| Report::from(Diagnostic::of_file(origin.as_str(), message));
    let bytes =
        read_bounded(path, MAX_FILE_BYTES).map_err(|why| of_file(format!("cannot be read: {why}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        of_file(format!("is not UTF-8; the first wrong byte is on line {line}"))
    })?;
    parse(&text, path, env, path.parent().unwrap_or(Path::new("")))
}

/// Reads a configuration's text. `origin` is the file's name in the report; relative paths in it start
/// from `base_dir`.
///
/// # Errors
/// Every mistake that is found.
pub fn parse(
    text: &str,
    origin: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    base_dir: &Path,
) -> Result<Model, Report> {
    let file = origin.display().to_string();
    if let Some(message) = too_large(text) {
        return Err(Diagnostic::of_file(file, message).into());
    }
    let mut reader = Reader::new(file.clone(), text);
    let sources = Sources { env, base_dir };
    let root =
        read_tree(text, &sources, &mut reader).and_then(|tree| section::<Root>().read(&tree, &mut reader));
    let mut hash = Sha256::new_with_prefix(text);
    let model = root.and_then(|root| lower::lower(&root, &mut reader, base_dir, &mut hash));
    match model {
        Some(model) if reader.findings.is_empty() => {
            let config_hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(Model { config_hash, ..model })
        }
        _ => Err(reader.findings.into_report(&file)),
    }
}

/// The file's tree with its references replaced; an empty file is one without keys.
fn read_tree(text: &str, sources: &Sources<'_>, reader: &mut Reader<'_>) -> Option<Node> {
    let read = node::read(text, &mut |flaw| {
        reader.error::<()>(flaw.place, flaw.message);
    });
    let mut tree = match read {
        Ok(tree) => tree.unwrap_or_else(Node::null),
        Err(flaw) => return reader.error(flaw.place, flaw.message),
    };
    reference::expand(&mut tree, sources, reader);
    Some(tree)
}

fn too_large(text: &str) -> Option<String> {
    if text.len() > MAX_FILE_BYTES {
        return Some(format!("has more than {MAX_FILE_BYTES} bytes; keep long lists in files of their own"));
    }
    let long = text.lines().position(|line| line.len() > MAX_LINE_BYTES)?;
    Some(format!("has more than {MAX_LINE_BYTES} bytes on line {}; break that line", long + 1))
}

/// A file's bytes, if they are not too many.
fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > limit { Err(format!("it has more than {limit} bytes")) } else { Ok(bytes) }
}
