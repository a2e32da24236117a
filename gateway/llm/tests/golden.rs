//! Translations as files: a directory a case under `golden/DIALECT/CASE`, where the dialect is the input's.
//!
//! A case is `case.json` (see [`harness::case::Case`]), one input and what is expected of it. The input is
//! `request.D.json`, `reply.D.json`, `error.D.json` (or with another ending, where an error is no JSON) or `stream.D.sse`,
//! or `stream.D.json` for Gemini's array. What it becomes is `to.D.json` or `to.D.sse` for each other dialect, with what
//! was lost in `to.D.losses`, a line a loss, or why it cannot be in `to.D.invalid`. What the input's own decoder refuses is
//! in `invalid.txt`; what an error was taken for is in `failure.txt`. JSON is laid out for people, and a file that no output
//! stands behind is a failure as much as an output without a file.
//!
//! `UPDATE_GOLDEN=1` writes the files: read what it wrote. `GOLDEN=text` runs those cases only whose path has the text.
//! `GOLDEN_PARTIAL=1` forgives dialects that are not built yet.

mod harness;

use std::collections::BTreeMap;
use std::path::Path;

use harness::run_all;

macro_rules! cases_of {
    ($($dialect:ident)*) => {
        $(#[test] fn $dialect() { run_all(stringify!($dialect)); })*

        #[test]
        fn each_directory_is_of_a_dialect() {
            let known = [$(stringify!($dialect)),*];
            for entry in std::fs::read_dir(harness::root()).expect("the cases are there") {
                let name = entry.expect("it can be read").file_name();
                assert!(known.iter().any(|known| name == **known), "{name:?} is no dialect");
            }
        }
    };
}

cases_of!(openai_chat openai_responses anthropic_messages gemini);

/// Traps that lie outside of a translation, and the test that is about each: a file, and a function in it.
const ELSEWHERE: &[(u8, &str, &str)] = &[
    (39, "src/endpoint.rs", "a_name_is_one_segment"),
    (59, "../src/proxy/llm/coding.rs", "bodies_are_decoded_wherever_they_are_cut"),
];

/// Traps of what this gateway does not have. Who adds it takes the trap off this list.
const NOT_HERE: &[(u8, &str)] = &[
    (35, "Bedrock is no dialect yet, so nothing is signed over its final bytes"),
    (55, "Bedrock is no dialect yet, so no stream has its frames"),
    (67, "answers are not cached, so there are no keys that a tenant could be missing from"),
    (68, "answers are not masked, so there is no mask that a chunk could cut"),
];

/// Each known trap has a case, a test elsewhere that is still there, or a reason; and one of them only, so that the lists
/// do not outlive what they say.
#[test]
fn each_trap_has_a_case() {
    #[derive(serde::Deserialize)]
    struct Traps {
        traps: Vec<u8>,
    }
    let mut homes: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for dialect in std::fs::read_dir(harness::root()).expect("the cases are there") {
        let dialect = dialect.expect("it can be read").path();
        for case in std::fs::read_dir(dialect).expect("it is a directory") {
            let path = case.expect("it can be read").path().join("case.json");
            let text = std::fs::read(&path).expect("a case has one");
            let Traps { traps } = serde_json::from_slice(&text).expect("it is JSON");
            for trap in traps {
                homes.entry(trap).or_default().push("a case".to_owned());
            }
        }
    }
    homes.values_mut().for_each(|homes| homes.dedup());
    for (trap, file, test) in ELSEWHERE {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(text.contains(&format!("fn {test}(")), "trap {trap}: {file} has no test {test}");
        homes.entry(*trap).or_default().push(format!("{file}: {test}"));
    }
    for (trap, why) in NOT_HERE {
        homes.entry(*trap).or_default().push(format!("not here: {why}"));
    }
    let wrong: Vec<_> = (1..=harness::case::TRAPS)
        .map(|trap| (trap, homes.remove(&trap).unwrap_or_default()))
        .filter(|(_, homes)| homes.len() != 1)
        .collect();
    assert!(wrong.is_empty(), "traps without a home, or with more than one: {wrong:?}");
    assert!(homes.is_empty(), "no traps: {homes:?}");
}
