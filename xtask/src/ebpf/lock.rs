//! The lock beside the committed object: what it was made from, and with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{PACKAGE, PROFILE, RUSTFLAGS, TARGET};

/// One committed object. Hashes are SHA-256 in hexadecimal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) sources: String,
    pub(crate) object: String,
    pub(crate) compiler: String,
    pub(crate) cargo: String,
    pub(crate) linker: String,
}

impl Lock {
    /// The file's text: a subset of TOML, so that editors know it.
    pub(crate) fn render(&self) -> String {
        let mut text =
            String::from("# Written by `cargo xtask ebpf`; proven by `cargo xtask ebpf --check`.\n");
        let fields = [
            ("sources", &self.sources),
            ("object", &self.object),
            ("compiler", &self.compiler),
            ("cargo", &self.cargo),
            ("linker", &self.linker),
        ];
        for (key, value) in fields {
            let _ = writeln!(text, "{key} = \"{value}\"");
        }
        text
    }

    /// Reads what `render` writes.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut fields = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) =
                line.split_once(" = ").with_context(|| format!("`{line}` is not `key = \"value\"`"))?;
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            fields.insert(key, value.with_context(|| format!("the value of `{key}` is not in quotes"))?);
        }
        let mut field = |key: &str| match fields.remove(key) {
            Some(value) => Ok(value.to_owned()),
            None => bail!("`{key}` is missing"),
        };
        Ok(Self {
            sources: field("sources")?,
            object: field("object")?,
            compiler: field("compiler")?,
            cargo: field("cargo")?,
            linker: field("linker")?,
        })
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// One hash over all that the object depends on but the compiler: sources, manifests, the exact dependencies, and
/// the way it is built.
///
/// Tests inside of the sources count as well. To leave them out one would have to parse Rust; a rebuild that gives
/// the same object costs half a minute.
pub(crate) fn source_hash(root: &Path) -> Result<String> {
    let mut parts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for place in ["gateway-ebpf", "gateway-common/src", "gateway-common/Cargo.toml"] {
        for file in files(&root.join(place))? {
            let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            parts.insert(name, fs::read(&file).with_context(|| format!("{}", file.display()))?);
        }
    }
    let read = |name: &str| {
        fs::read_to_string(root.join(name)).with_context(|| format!("{name} in {}", root.display()))
    };
    // Edition and version go into the names of symbols; versions of dependencies stand in Cargo.lock.
    parts.insert("[workspace.package]".into(), table(&read("Cargo.toml")?, "workspace.package").into());
    parts.insert("[dependencies]".into(), closure(&read("Cargo.lock")?, PACKAGE)?.into());
    let recipe = format!("{TARGET} {RUSTFLAGS:?} {PROFILE:?}");
    parts.insert("[recipe]".into(), recipe.into());
    Ok(hash_parts(&parts))
}

/// Names and contents, each with its length before it: no two sets of parts hash the same stream.
fn hash_parts(parts: &BTreeMap<String, Vec<u8>>) -> String {
    let mut stream = Vec::new();
    for (name, content) in parts {
        for bytes in [name.as_bytes(), content] {
            stream.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            stream.extend_from_slice(bytes);
        }
    }
    sha256(&stream)
}

/// The file, or all files under the directory; editors' leftovers are none of ours.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("{}", path.display()))? {
        let path = entry?.path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs" || extension == "toml");
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(files(&path)?);
        } else if is_source {
            found.push(path);
        }
    }
    Ok(found)
}

/// The lines of one table of a TOML file.
fn table(toml: &str, name: &str) -> String {
    let header = format!("[{name}]");
    let body = toml.lines().skip_while(|line| line.trim() != header).skip(1);
    body.take_while(|line| !line.starts_with('[')).fold(String::new(), |text, line| text + line.trim() + "\n")
}

/// Every package that this one depends on, with version and checksum, in a fixed order.
fn closure(cargo_lock: &str, package: &str) -> Result<String> {
    let mut packages: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for block in cargo_lock.split("[[package]]\n").skip(1) {
        let value = |key: &str| {
            let line =
                block.lines().find(|line| line.starts_with(key) && line[key.len()..].starts_with(" = "))?;
            Some(line[key.len() + 3..].trim_matches('"'))
        };
        let name = value("name").context("a package without a name in Cargo.lock")?;
        // Cargo names a dependency by its name alone, or with the version where there are several.
        for key in [name.to_owned(), format!("{name} {}", value("version").unwrap_or_default())] {
            packages.entry(key).or_default().push(block);
        }
    }
    let mut todo = vec![package.to_owned()];
    let mut seen = BTreeSet::new();
    let mut lines = BTreeSet::new();
    while let Some(name) = todo.pop() {
        let blocks = packages.get(&name).with_context(|| format!("`{name}` is not in Cargo.lock"))?;
        if !seen.insert(name) {
            continue;
        }
        for block in blocks {
            let (facts, dependencies) = block.split_once("dependencies = [").unwrap_or((block, ""));
            lines.insert(facts.split_whitespace().collect::<Vec<_>>().join(" "));
            let entries = dependencies
                .lines()
                .take_while(|line| *line != "]")
                .filter_map(|line| line.trim().strip_prefix('"'));
            todo.extend(entries.filter_map(|line| Some(line.split_once('"')?.0.to_owned())));
        }
    }
    Ok(lines.into_iter().collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_sha256() {
        let cases = [
            ("empty", "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ];
        for (name, input, expected) in cases {
            assert_eq!(sha256(input.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn any_change_of_the_parts_changes_the_hash() {
        let parts = |list: &[(&str, &str)]| {
            hash_parts(&list.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect())
        };
        let original = parts(&[("a", "x"), ("b", "yz")]);
        let cases = [
            ("content", parts(&[("a", "X"), ("b", "yz")])),
            ("name", parts(&[("c", "x"), ("b", "yz")])),
            ("one less", parts(&[("a", "x")])),
            ("border moved", parts(&[("a", "xb"), ("b", "yz")])),
            ("content swapped", parts(&[("a", "yz"), ("b", "x")])),
        ];
        for (name, changed) in cases {
            assert_ne!(changed, original, "{name}");
        }
        assert_eq!(parts(&[("b", "yz"), ("a", "x")]), original, "the order of reading does not count");
    }

    #[test]
    fn locks() {
        let lock = Lock {
            sources: "aa".into(),
            object: "bb".into(),
            compiler: "rustc 1.96.0 (x 2026-05-25)".into(),
            cargo: "cargo 1.95.0".into(),
            linker: "bpf-linker 0.13.0".into(),
        };
        let text = lock.render();
        let cases = [
            ("as written", text.clone(), Ok(lock)),
            ("a field less", text.replace("cargo = \"cargo 1.95.0\"\n", ""), Err("`cargo` is missing")),
            ("no quotes", text.replace("\"aa\"", "aa"), Err("the value of `sources` is not in quotes")),
            ("not a pair", format!("{text}<<<<<<<\n"), Err("`<<<<<<<` is not `key = \"value\"`")),
        ];
        for (name, text, expected) in cases {
            let read = Lock::parse(&text).map_err(|error| error.to_string());
            assert_eq!(read, expected.map_err(str::to_owned), "{name}");
        }
    }

    const CARGO_LOCK: &str = "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\n \
         \"left\",\n \"pair 2.0.0\",\n]\n\n[[package]]\nname = \"left\"\nversion = \"1.2.3\"\nchecksum = \"c1\"\n\n\
         [[package]]\nname = \"pair\"\nversion = \"1.0.0\"\nchecksum = \"c2\"\n\n[[package]]\nname = \"pair\"\n\
         version = \"2.0.0\"\nchecksum = \"c3\"\n\n[[package]]\nname = \"other\"\nversion = \"9.0.0\"\n";

    #[test]
    fn dependencies_of_one_package() {
        let cases: [(&str, &str, &[&str]); 3] = [
            ("app", "app", &["\"app\"", "c1", "c3"]),
            ("leaf", "left", &["c1"]),
            ("both versions by bare name", "pair", &["c2", "c3"]),
        ];
        for (name, package, expected) in cases {
            let text = closure(CARGO_LOCK, package).unwrap();
            assert_eq!(text.lines().count(), expected.len(), "{name}: {text}");
            for part in expected {
                assert!(text.contains(part), "{name}: {part} in {text}");
            }
        }
        assert_eq!(closure(CARGO_LOCK, "nobody").unwrap_err().to_string(), "`nobody` is not in Cargo.lock");
    }

    #[test]
    fn tables_of_a_manifest() {
        let toml = "[a]\nx = 1\n\n[workspace.package]\nedition = \"2024\"\nversion = \"1\"\n[b]\ny = 2\n";
        let cases = [
            ("in the middle", "workspace.package", "edition = \"2024\"\nversion = \"1\"\n"),
            ("at the end", "b", "y = 2\n"),
            ("missing", "c", ""),
        ];
        for (name, header, expected) in cases {
            assert_eq!(table(toml, header), expected, "{name}");
        }
    }
}
