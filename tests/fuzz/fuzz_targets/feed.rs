//! Any bytes are a list file of any format: nothing is lost without an error, every entry is one that may be
//! listed, and what was read is read back from its export.
#![no_main]

use std::time::Duration;

use gateway_kernel::feed::{self, Column, Feed, Format, Options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Whatever says one thing or the other takes no byte away from the file.
    let options = Options { allow_everything: bytes.len() & 1 == 0 };
    let column = if bytes.len() & 2 == 0 { Column::Number(1) } else { Column::Name("ip".to_owned()) };
    let lines = bytes.split(|&byte| byte == b'\n').count();
    let formats = [
        Format::Auto,
        Format::Plain,
        Format::Ipset,
        Format::Nft,
        Format::SpamhausJson,
        Format::Csv { column },
    ];
    for format in formats {
        let read = feed::parse_as(bytes, &format, options);
        check(&read, lines, options);
        if format == Format::Plain {
            assert!(read.entries.len() + read.error_count <= lines);
        }
    }
});

fn check(read: &Feed, lines: usize, options: Options) {
    assert!(read.errors.len() <= read.error_count.min(feed::MAX_ERRORS));
    assert!(read.errors.is_sorted_by_key(|error| error.line));
    assert!(read.errors.iter().all(|error| (1..=lines).contains(&error.line)), "{:?}", read.errors);
    let mut export = String::new();
    for entry in &read.entries {
        assert!((1..=lines).contains(&(entry.line as usize)), "{entry:?}");
        let ttl = (entry.ttl_ms > 0).then(|| Duration::from_millis(entry.ttl_ms));
        feed::write_line(&mut export, entry.prefix, read.reason(entry), ttl, entry.shadow);
    }
    let again = feed::parse_as(export.as_bytes(), &Format::Plain, options);
    assert_eq!(again.error_count, 0, "{:?}", again.errors);
    assert_eq!(again.entries.len(), read.entries.len());
    for (before, after) in read.entries.iter().zip(&again.entries) {
        assert_eq!(
            (before.prefix, read.reason(before), before.ttl_ms, before.shadow),
            (after.prefix, again.reason(after), after.ttl_ms, after.shadow)
        );
    }
}
