//! Finds the program under test, built from the sources as they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::sweep;

/// The built `gateway`: `GATEWAY_TEST_BIN`, or what cargo builds next to this test with its profile. Built
/// once a run: nextest starts a process a test, and asking cargo each time would cost more than the test.
pub fn gateway_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("GATEWAY_TEST_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/<profile>/deps/suite-<hash>
    let profile_dir = test.parent().and_then(Path::parent).unwrap();
    let binary = profile_dir.join("gateway");
    let _lock = sweep::lock("build");
    let run = std::env::var("NEXTEST_RUN_ID").ok();
    let mark = profile_dir.join("gateway-tests.run");
    if run.is_some() && binary.exists() && std::fs::read_to_string(&mark).ok() == run {
        return binary;
    }
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--package", "gateway", "--bin", "gateway", "--profile", profile])
        .arg("--target-dir")
        .arg(profile_dir.parent().unwrap())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{cargo:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    if let Some(run) = run {
        std::fs::write(mark, run).unwrap();
    }
    binary
}
