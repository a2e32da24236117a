//! Any bytes are a MaxMind database, and so are any bytes with a good description behind them: networks are
//! selected, or it is said why not, in bounded time.
#![no_main]

use gateway_kernel::feed::{mmdb, prefixes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    select(bytes);
    // Chance finds no description, so that this is what reaches the tree and the records.
    if let Some((&[choice, nodes], content)) = bytes.split_first_chunk() {
        let record_bits = [24, 28, 32][usize::from(choice % 3)];
        let ip_version = if choice & 0x80 == 0 { 4 } else { 6 };
        let mut file = content.to_vec();
        describe(&mut file, nodes.into(), record_bits, ip_version);
        select(&file);
    }
});

fn select(bytes: &[u8]) {
    let Ok(networks) = mmdb::select(bytes, &["NL".to_owned()], &[1]) else { return };
    let mut fewest = networks.clone();
    prefixes::aggregate(&mut fewest);
    assert_eq!(networks, fewest);
}

/// Appends the least description that a reader takes.
fn describe(out: &mut Vec<u8>, nodes: u16, record_bits: u16, ip_version: u16) {
    out.extend(b"\xab\xcd\xefMaxMind.com");
    let number = |out: &mut Vec<u8>, name: &str, value: u16| {
        text(out, name);
        out.push(5 << 5 | 2);
        out.extend(value.to_be_bytes());
    };
    out.push(7 << 5 | 9);
    number(out, "binary_format_major_version", 2);
    number(out, "binary_format_minor_version", 0);
    number(out, "ip_version", ip_version);
    number(out, "record_size", record_bits);
    text(out, "node_count");
    out.extend([6 << 5 | 2]);
    out.extend(nodes.to_be_bytes());
    // An unsigned number of 64 bits, a map and an array, all of them empty.
    text(out, "build_epoch");
    out.extend([0, 2]);
    text(out, "database_type");
    text(out, "x");
    text(out, "description");
    out.push(7 << 5);
    text(out, "languages");
    out.extend([0, 4]);
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(2 << 5 | text.len() as u8);
    out.extend(text.as_bytes());
}
