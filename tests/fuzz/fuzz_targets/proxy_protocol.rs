//! Any bytes are a header, the beginning of one, or none: no panic, and never more bytes than a header can have.
#![no_main]

use gateway::proxy::proxy_protocol::{Progress, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut length = 0;
    while let Ok(Progress::Needs(count)) = read(&bytes[..length]) {
        assert!(count > 0 && length + count <= 16 + 4096);
        length += count;
        if length > bytes.len() {
            return;
        }
    }
});
