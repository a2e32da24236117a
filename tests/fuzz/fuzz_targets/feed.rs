//! Any bytes are a list file: every line is an entry, an error or neither, and what was read is read back
//! from its export.
#![no_main]

use gateway_kernel::feed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let read = feed::parse(bytes);
    let lines = bytes.split(|&byte| byte == b'\n').count();
    assert!(read.entries.len() + read.error_count <= lines);
    let mut export = String::new();
    for entry in &read.entries {
        feed::write_line(&mut export, entry.prefix, entry.reason.as_deref(), entry.ttl, entry.shadow);
    }
    let again = feed::parse(export.as_bytes());
    assert_eq!(again.error_count, 0, "{:?}", again.errors);
    for (before, after) in read.entries.iter().zip(&again.entries) {
        assert_eq!(
            (before.prefix, &before.reason, before.ttl, before.shadow),
            (after.prefix, &after.reason, after.ttl, after.shadow)
        );
    }
});
