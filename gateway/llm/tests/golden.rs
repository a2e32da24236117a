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
