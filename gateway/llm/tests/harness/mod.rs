//! Runs translations that are kept as files.

pub(crate) mod case;
mod layout;
mod stream;
mod translate;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use case::{Case, Input};

/// Where the cases are.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "1")
}

/// Runs the cases of a dialect, and fails with all that is wrong with any of them.
pub(crate) fn run_all(dialect: &str) {
    translate::quiet_about_what_is_not_built();
    let wanted = std::env::var("GOLDEN").unwrap_or_default();
    let mut directories: Vec<PathBuf> = match std::fs::read_dir(root().join(dialect)) {
        Ok(entries) => entries.map(|entry| entry.expect("it can be read").path()).collect(),
        Err(_) if is_set("GOLDEN_PARTIAL") => return,
        Err(error) => panic!("there are no cases of {dialect}: {error}"),
    };
    directories.retain(|path| path.to_string_lossy().contains(&wanted));
    directories.sort();
    let mut report = String::new();
    let mut failed = 0;
    for directory in &directories {
        let problems = run(directory, dialect);
        if !problems.is_empty() {
            failed += 1;
            let name = directory.strip_prefix(root()).unwrap_or(directory);
            let _ = writeln!(report, "\n=== {}", name.display());
            problems.iter().for_each(|problem| report.push_str(&format!("{problem}\n")));
        }
    }
    assert!(failed == 0, "{failed} of {} cases failed{report}", directories.len());
}

/// What is wrong with a case.
fn run(directory: &Path, dialect: &str) -> Vec<String> {
    let (case, input) = match Case::read(directory, dialect) {
        Ok(read) => read,
        Err(problem) => return vec![problem],
    };
    let outcome = translate::translate(&case, &input);
    let mut problems = outcome.problems;
    let not_built = outcome.not_built;
    if !not_built.is_empty() {
        let names: Vec<String> = not_built.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        if is_set("GOLDEN_PARTIAL") {
            eprintln!("{}: not built: {}", directory.display(), names);
        } else {
            problems.push(format!("not built: {}", names));
        }
    }
    let is_ours = |name: &str| !not_built.iter().any(|stage| stage.concerns(name));
    if is_set("UPDATE_GOLDEN") {
        update(directory, &input, &outcome.files, is_ours);
    } else {
        compare(directory, &input, &outcome.files, is_ours, &mut problems);
    }
    problems
}

/// The files of a case that are expectations.
fn expected(directory: &Path, input: &Input) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .expect("it was read before")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .filter(|name| !input.is_own_file(name))
        .collect();
    names.sort();
    names
}

fn update(directory: &Path, input: &Input, files: &BTreeMap<String, String>, is_ours: impl Fn(&str) -> bool) {
    for name in expected(directory, input) {
        if !files.contains_key(&name) && is_ours(&name) {
            std::fs::remove_file(directory.join(name)).expect("it can be removed");
        }
    }
    for (name, text) in files {
        std::fs::write(directory.join(name), text).expect("it can be written");
    }
}

fn compare(
    directory: &Path,
    input: &Input,
    files: &BTreeMap<String, String>,
    is_ours: impl Fn(&str) -> bool,
    problems: &mut Vec<String>,
) {
    for name in expected(directory, input) {
        if !files.contains_key(&name) && is_ours(&name) {
            let text = std::fs::read_to_string(directory.join(&name)).unwrap_or_default();
            problems.push(format!("{name} is expected, and nothing is there:\n{}", layout::shorten(&text)));
        }
    }
    for (name, text) in files {
        match std::fs::read_to_string(directory.join(name)) {
            Ok(known) if known == *text => {}
            Ok(known) => problems.push(format!("{name} differs:\n{}", layout::difference(&known, text))),
            Err(_) => {
                problems.push(format!("{name} is not expected, and is there:\n{}", layout::shorten(text)));
            }
        }
    }
}
