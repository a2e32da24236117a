//! A configuration in parts: the files of `conf.d` beside the main one. They add to its named maps and to nothing else, so
//! that no order of files decides what holds: only the main file says what there is one of.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gateway_kernel::feed::shown;

use crate::config::keys::Root;
use crate::config::node::{Key, Node, Place, Value};
use crate::config::reader::Reader;
use crate::config::report::{Diagnostic, Findings, Report};
use crate::config::shape::{Record as _, either};
use crate::config::{MAX_FILE_BYTES, read_bounded};

/// The directory of the parts, beside the main file.
const DIRECTORY: &str = "conf.d";
/// The ending of their names.
const ENDING: &str = "yaml";
/// Parts of one configuration.
const MAX_PARTS: usize = 1000;

/// A file of a configuration.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Reads the main file and its parts: it first, they in the order of their names.
///
/// # Errors
/// Every file that cannot be read, or is no text.
pub(crate) fn read(main: &Path) -> Result<Vec<Part>, Report> {
    let mut findings = Findings::default();
    let mut paths = vec![main.to_owned()];
    paths.extend(beside(main, &mut findings));
    let (mut parts, mut total) = (Vec::new(), 0);
    for path in paths {
        let text = read_text(&path).and_then(|text| {
            total += text.len();
            if total > MAX_FILE_BYTES && text.len() < total {
                return Err(format!("brings the configuration beyond {MAX_FILE_BYTES} bytes in all"));
            }
            Ok(text)
        });
        match text {
            Ok(text) => parts.push(Part { path, text }),
            Err(why) => findings.push(Diagnostic::of_file(path.display().to_string(), why)),
        }
    }
    if findings.is_empty() { Ok(parts) } else { Err(findings.into_report(&main.display().to_string())) }
}

/// The parts' paths. Hidden files are left alone: editors and mounted volumes make them.
fn beside(main: &Path, findings: &mut Findings) -> Vec<PathBuf> {
    let directory = main.parent().unwrap_or(Path::new("")).join(DIRECTORY);
    let mut fail = |path: &Path, why: String| {
        findings.push(Diagnostic::of_file(path.display().to_string(), why));
        Vec::new()
    };
    let names = fs::read_dir(&directory).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<OsString>>>()
    });
    let mut names = match names {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return fail(&directory, format!("cannot be read: {error}")),
    };
    names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
    names.sort();
    let mut paths: Vec<PathBuf> = names.into_iter().map(|name| directory.join(name)).collect();
    // Who names a part so means it to be read.
    if let Some(other) = paths.iter().find(|path| path.extension().is_some_and(|ending| ending == "yml")) {
        return fail(other, format!("would not be read; its name has to end in .{ENDING}"));
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == ENDING));
    if paths.len() > MAX_PARTS {
        let why = format!("has {} files of a configuration; at most {MAX_PARTS} are read", paths.len());
        return fail(&directory, why);
    }
    paths
}

fn read_text(path: &Path) -> Result<String, String> {
    let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(|why| format!("cannot be read: {why}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        format!("is not UTF-8; the first wrong byte is on line {line}")
    })
}

/// Adds what parts name to the main file's tree. What they may not say is reported where they say it.
pub(crate) fn merge(main: &mut Node, parts: Vec<Node>, reader: &mut Reader<'_>) {
    if parts.is_empty() {
        return;
    }
    if matches!(main.value, Value::Null) {
        main.value = Value::Map(Vec::new());
    }
    // Anything else is no configuration, and is reported when it is read.
    let Value::Map(root) = &mut main.value else { return };
    let keys = Root::fields();
    let maps: Vec<(&str, &str)> =
        keys.iter().filter(|key| key.step == ".<name>").map(|key| (key.name, key.noun.as_str())).collect();
    let mut first = HashMap::new();
    for (key, node) in &*root {
        if let Value::Map(entries) = &node.value {
            first.extend(entries.iter().map(|(name, _)| ((key.name.clone(), name.name.clone()), name.place)));
        }
    }
    for part in parts {
        let entries = match part.value {
            Value::Map(entries) => entries,
            Value::Null => continue,
            _ => {
                let noun = format!("a map with {}", either(&names(&maps), "and"));
                reader.expected::<()>(&part, &noun);
                continue;
            }
        };
        for (key, node) in entries {
            let Some((_, noun)) = maps.iter().find(|(name, _)| *name == key.name) else {
                refuse(&key, &maps, reader);
                continue;
            };
            match node.value {
                Value::Map(named) => add(root, &key, node.place, named, &mut first, reader),
                Value::Null => {}
                _ => drop(reader.expected::<()>(&node, noun)),
            }
        }
    }
}

/// Where each name of each map stands first.
type First = HashMap<(String, String), Place>;

/// Adds the entries of one map.
fn add(
    root: &mut Vec<(Key, Node)>,
    map: &Key,
    place: Place,
    named: Vec<(Key, Node)>,
    first: &mut First,
    reader: &mut Reader<'_>,
) {
    let mut new = Vec::new();
    for (key, node) in named {
        let known = first.get(&(map.name.clone(), key.name.clone())).copied();
        if let Some(known) = known {
            let at = reader.line(known, key.place);
            let message = format!("`{}` is given twice; the first is on {at}", shown(&key.name));
            reader.error::<()>(key.place, message);
            continue;
        }
        first.insert((map.name.clone(), key.name.clone()), key.place);
        new.push((key, node));
    }
    match root.iter_mut().find(|(key, _)| key.name == map.name).map(|(_, node)| node) {
        Some(Node { value: Value::Map(entries), .. }) => entries.extend(new),
        Some(node) if matches!(node.value, Value::Null) => node.value = Value::Map(new),
        // A list or a text, which is reported when it is read.
        Some(_) => {}
        None => root.push((map.clone(), Node { place, value: Value::Map(new) })),
    }
}

fn names<'a>(maps: &[(&'a str, &'a str)]) -> Vec<&'a str> {
    maps.iter().map(|(name, _)| *name).collect()
}

fn refuse(key: &Key, maps: &[(&str, &str)], reader: &mut Reader<'_>) {
    let names = names(maps);
    if !Root::names().contains(&key.name.as_str()) {
        return reader.unknown_key(key, &names);
    }
    let message = format!(
        "`{}` stands in the main file alone; files of {DIRECTORY} add to {}",
        key.name,
        either(&names, "and")
    );
    reader.error::<()>(key.place, message);
}
