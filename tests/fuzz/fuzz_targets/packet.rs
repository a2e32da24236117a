//! Any bytes are a frame: it is read without a panic, and the rules give the reason that reading gave.
#![no_main]

use std::sync::LazyLock;

use gateway_common::packet::{Headers, parse};
use gateway_common::verdict::{Reason, Verdict};
use gateway_kernel::Rules;
use libfuzzer_sys::fuzz_target;

/// With every list empty, only the frame itself can decide.
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::in_userspace().expect("there is memory"));

fuzz_target!(|frame: &[u8]| {
    let mut headers = Headers::BLANK;
    let read = parse(&frame, &mut headers);
    let judged = RULES.judge(frame).expect("lists in memory can always be read");
    let expected = match read {
        Err(reason) => reason,
        Ok(()) if headers.packet.fragment.is_later() => Reason::Fragment,
        Ok(()) => Reason::NoMatch,
    };
    assert_eq!(judged.reason, expected, "{frame:02x?}");
    // What could be read, no empty list may drop; what names neither IPv4 nor IPv6 is not ours to drop.
    let passes = read.is_ok() || expected == Reason::NotIp;
    assert_eq!(judged.verdict() == Verdict::Pass, passes, "{frame:02x?}");
    assert!(read.is_err() || headers.has_addresses, "{frame:02x?}");
});
