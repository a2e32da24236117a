//! Tests that cannot run here say so: loudly, on record, and as a failure in CI.

use std::fs::OpenOptions;
use std::io::Write;

/// Why this process cannot make namespaces and load programs; `None` when it can.
pub fn lacks_root() -> Option<String> {
    (!rustix::process::geteuid().is_root())
        .then(|| "network namespaces and BPF need root; run the suite with sudo".to_owned())
}

/// Records that the running test was skipped. In CI a skipped test is a failed one: nobody reads its log.
///
/// # Panics
/// With `CI=true`.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("GATEWAY_TEST_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        // One write: lines of tests that run side by side must not mix.
        file.write_all(format!("{test}: {why}\n").as_bytes()).unwrap();
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} was skipped, and CI skips nothing: {why}");
}
