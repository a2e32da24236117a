//! What users write, lowered once into [`crate::model`]: a YAML file and those of conf.d beside it, read with every mistake in it
//! reported at its place. Nothing outside of this module sees a configuration before it is a model.

mod capacity;
mod discover;
mod guide;
mod keys;
mod lists;
mod llm;
mod lower;
mod matching;
mod node;
mod notation;
mod parts;
mod reader;
mod reference;
mod report;
mod routes;
mod shape;
#[cfg(test)]
mod tests;
mod upstream_keys;
mod upstreams;
mod warnings;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::config::keys::Root;
use crate::config::node::{Files, Node};
use crate::config::parts::Part;
use crate::config::reader::Reader;
use crate::config::reference::Sources;
use crate::config::shape::{Shape as _, section};
use crate::model::Model;

pub(crate) use discover::{MAX_ENDPOINTS_BYTES, endpoints};
pub use guide::{reference, schema};
pub(crate) use lists::{column_of, is_own_list};
pub(crate) use llm::key_field;
pub use report::{Diagnostic, MAX_DIAGNOSTICS, Report, Severity};

/// Bytes of a configuration file.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one of its lines: a report repeats whole lines.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// A configuration that can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What runs.
    pub model: Model,
    /// What may not be meant; perhaps nothing.
    pub warnings: Report,
}

/// Reads the configuration in a file, in the files of `conf.d` beside it, and the list files they name relative to the
/// main file's directory.
///
/// # Errors
/// Every mistake that is found.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Model, Report> {
    check(path, env).map(|checked| checked.model)
}

/// Reads it likewise, and says what may not be meant, too.
///
/// # Errors
/// Every mistake that is found.
pub fn check(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Checked, Report> {
    let parts = parts::read(path)?;
    parse_all(&parts, env, path.parent().unwrap_or(Path::new("")))
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
    let parts = [Part { path: origin.to_owned(), text: text.to_owned() }];
    parse_all(&parts, env, base_dir).map(|checked| checked.model)
}

/// Reads a configuration in parts, the main file first.
fn parse_all(
    parts: &[Part],
    env: &dyn Fn(&str) -> Option<String>,
    base_dir: &Path,
) -> Result<Checked, Report> {
    let name = |part: &Part| part.path.display().to_string();
    let mut reader = Reader::over(parts.iter().map(|part| (name(part), part.text.as_str())));
    for part in parts {
        if let Some(message) = too_large(&part.text) {
            reader.findings.push(Diagnostic::of_file(name(part), message));
        }
    }
    let mut hash = hash(parts);
    let is_sound = reader.findings.is_empty();
    let root = is_sound.then(|| read_trees(parts, &Sources { env, base_dir }, &mut reader)).flatten();
    let root = root.and_then(|tree| section::<Root>().read(&tree, &mut reader));
    let model = root.as_ref().and_then(|root| lower::lower(root, &mut reader, base_dir, &mut hash));
    let main_file = parts.first().map(name).unwrap_or_default();
    match (model, &root) {
        (Some(model), Some(root)) if reader.findings.is_empty() => {
            warnings::look(root, &model, &mut reader, base_dir);
            let config_hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            let config_files = parts.iter().map(|part| part.path.clone()).collect();
            let model = Model { config_hash, config_files, ..model };
            Ok(Checked { model, warnings: reader.findings.into_warnings(&main_file) })
        }
        _ => Err(reader.findings.into_report(&main_file)),
    }
}

/// Of one file, its text's. Parts come with their names and lengths, so that nothing moves from one to another unseen.
fn hash(parts: &[Part]) -> Sha256 {
    let mut hash = Sha256::new();
    for (number, Part { path, text }) in parts.iter().enumerate() {
        if number > 0 {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((text.len() as u64).to_le_bytes());
        }
        hash.update(text);
    }
    hash
}

/// The tree of all files, their references replaced; an empty file is one without keys. `None` where one of them is no
/// YAML: what the others say cannot be judged without it.
fn read_trees(parts: &[Part], sources: &Sources<'_>, reader: &mut Reader<'_>) -> Option<Node> {
    let mut files = Files::default();
    let mut trees = Vec::new();
    for part in parts {
        let read = files.read(&part.text, &mut |flaw| {
            reader.error::<()>(flaw.place, flaw.message);
        });
        match read {
            Ok(tree) => trees.push(tree.unwrap_or_else(Node::null)),
            Err(flaw) => drop(reader.error::<()>(flaw.place, flaw.message)),
        }
    }
    if trees.len() < parts.len() {
        return None;
    }
    let mut trees = trees.into_iter();
    let mut tree = trees.next()?;
    parts::merge(&mut tree, trees.collect(), reader);
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
