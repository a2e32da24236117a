//! The gateway's golden cases against the types of OpenAI's and Anthropic's own SDKs: what the gateway writes in their
//! dialects is what they define, and streams are what their accumulators take.
//!
//! One process and no server; `tests/sdk/README.md` says how to play it by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gateway_tests::skip;
use serde_json::Value;

/// Requests, replies and streams of three dialects.
const KINDS: usize = 9;
/// Fewer than there are cases of each, so that a glob that finds nothing is no success.
const LEAST: u64 = 50;

#[test]
fn golden_cases_are_what_the_sdks_define() {
    // target/<profile>/deps/suite-<hash>
    let test = std::env::current_exe().unwrap();
    let python: PathBuf = test.ancestors().nth(3).unwrap().join("tools/sdk/python");
    if !python.join("installed").exists() {
        return skip("the SDKs for Python are not installed (cargo xtask test does it)");
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python.join("venv/bin/python"))
        .arg(here.join("sdk/py_golden.py"))
        .arg("--cases")
        .arg(here.join("../gateway/llm/tests/golden"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wrong: Vec<String> = lines
        .iter()
        .filter(|line| line["ok"] != true || line["cases"].as_u64().is_none_or(|cases| cases < LEAST))
        .map(|line| serde_json::to_string_pretty(line).unwrap())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(lines.len(), KINDS, "others were looked at than the test says:\n{text}\n{log}");
}
