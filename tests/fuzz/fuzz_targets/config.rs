//! Any text is a configuration or a report: no panic, no mistake outside of its line, and no secret shown.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

const SECRET: &str = "hunter2-hunter2";

fuzz_target!(|text: &str| {
    // What the text itself says is no secret.
    if text.contains("hunter2") {
        return;
    }
    let env = |name: &str| (name.len() < 3).then(|| SECRET.to_owned());
    // A directory that does not exist, so that no file is read whatever the text names, `/dev/zero` included.
    let absolute = text.contains("file") && text.contains('/');
    if absolute {
        return;
    }
    let Err(report) = gateway::config::parse(text, Path::new("fuzz.yaml"), &env, Path::new("/nonexistent"))
    else {
        return;
    };
    assert!(report.total() > 0 && !report.diagnostics().is_empty());
    let shown = report.render(true) + &report.json().to_string();
    assert!(!shown.contains(SECRET), "{shown}");
    for diagnostic in report.diagnostics().iter().filter(|diagnostic| diagnostic.line > 0) {
        let width = diagnostic.source_line.chars().count();
        assert!(diagnostic.column >= 1 && diagnostic.column <= width + 1, "{diagnostic:?}");
    }
});
