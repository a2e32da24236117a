//! Tests that cannot run here say so: loudly, on record, and as a failure in CI.

use std::fs::OpenOptions;
use std::io::Write;

/// The capabilities that namespaces, raw frames and programs need, by their bits in the kernel's ABI.
const NEEDED: [(&str, u32); 4] =
    [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_SYS_ADMIN", 21), ("CAP_BPF", 39)];

/// Why this process cannot make namespaces and load programs; `None` when it can. Root alone does not
/// say it: root in a container may lack them all.
pub fn lacks_root() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
    let missing: Vec<_> =
        NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect();
    (!missing.is_empty())
        .then(|| format!("namespaces and BPF need root; this process lacks {}", missing.join(", ")))
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
