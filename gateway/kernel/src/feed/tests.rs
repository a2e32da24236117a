//! Tables of each format, and what holds for all of them.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::notation::MAX_SHOWN_CHARS;
use super::*;

/// What a table expects of one file, in one string: entries as they are exported, then errors.
fn summary_as(bytes: &[u8], format: &Format) -> String {
    let feed = parse_as(bytes, format, Options::default());
    let mut out = String::new();
    for entry in &feed.entries {
        let _ = write!(out, "{}: ", entry.line);
        let ttl = (entry.ttl_ms > 0).then(|| Duration::from_millis(entry.ttl_ms));
        write_line(&mut out, entry.prefix, feed.reason(entry), ttl, entry.shadow);
    }
    for error in &feed.errors {
        let _ = writeln!(out, "{}! {} | {}", error.line, error.text, error.why);
    }
    out
}

/// The same, and that the format is told by the content.
fn check(name: &str, text: &str, format: &Format, expected: &str) {
    assert_eq!(summary_as(text.as_bytes(), format), expected, "{name}");
    assert_eq!(detect::format_of(text.as_bytes()), *format, "{name}");
}

#[test]
fn files_are_read_line_by_line() {
    let table: &[(&str, &[u8], &str)] = &[
        ("empty", b"", ""),
        ("blank and comments", b"\n  \n# a\n; b\n\t# c\n", ""),
        ("address", b"192.0.2.1", "1: 192.0.2.1\n"),
        ("prefix", b"192.0.2.0/24\n", "1: 192.0.2.0/24\n"),
        ("v6", b"2001:db8::/32\n2001:DB8::1\n", "1: 2001:db8::/32\n2: 2001:db8::1\n"),
        ("BOM and CRLF", b"\xef\xbb\xbf192.0.2.1\r\n192.0.2.2\r\n", "1: 192.0.2.1\n2: 192.0.2.2\n"),
        ("Spamhaus", b"192.0.2.0/24 ; SBL1\n", "1: 192.0.2.0/24\n"),
        ("comment at once", b"192.0.2.1# x\n192.0.2.2;y", "1: 192.0.2.1\n2: 192.0.2.2\n"),
        ("twice", b"192.0.2.1\n192.0.2.1 shadow", "1: 192.0.2.1\n2: 192.0.2.1 shadow\n"),
        (
            "attributes",
            b"192.0.2.1 shadow\tttl=1h30m reason=a#b;c # x",
            "1: 192.0.2.1 reason=a#b;c ttl=5400s shadow\n",
        ),
        ("quoted", br#"192.0.2.1 reason="a # \"b\" \u00e9""#, "1: 192.0.2.1 reason=\"a # \\\"b\\\" é\"\n"),
        ("quoted and more", br#"192.0.2.1 reason="a b"  ttl=540s"#, "1: 192.0.2.1 reason=\"a b\" ttl=540s\n"),
        ("garbage", b"x\n192.0.2.1\n", "2: 192.0.2.1\n1! x | x is not an address or a prefix\n"),
        (
            "host bits",
            b"198.51.100.7/24",
            "1! 198.51.100.7/24 | 198.51.100.7/24 has host bits set; did you mean 198.51.100.0/24?\n",
        ),
        (
            "mapped",
            b"::ffff:192.0.2.1\n::ffff:192.0.2.1/120\n::ffff:0:0/96",
            "1! ::ffff:192.0.2.1 | ::ffff:192.0.2.1 is IPv4 mapped into IPv6, and its packets are IPv4; did you mean 192.0.2.1?\n\
             2! ::ffff:192.0.2.1/120 | ::ffff:192.0.2.1/120 is IPv4 mapped into IPv6, and its packets are IPv4; did you mean 192.0.2.0/24?\n\
             3! ::ffff:0:0/96 | ::ffff:0:0/96 is IPv4 mapped into IPv6, and its packets are IPv4\n",
        ),
        (
            "everything",
            b"0.0.0.0/0\n::/0",
            "1! 0.0.0.0/0 | 0.0.0.0/0 covers every address there is; `--force` takes it\n\
             2! ::/0 | ::/0 covers every address there is; `--force` takes it\n",
        ),
        (
            "length",
            b"192.0.2.0/33\n192.0.2.0/+8\n192.0.2.0/\n2001:db8::/129",
            "1! 192.0.2.0/33 | the prefix length of 192.0.2.0/33 is not a number from 1 to 32\n\
             2! 192.0.2.0/+8 | the prefix length of 192.0.2.0/+8 is not a number from 1 to 32\n\
             3! 192.0.2.0/ | the prefix length of 192.0.2.0/ is not a number from 1 to 32\n\
             4! 2001:db8::/129 | the prefix length of 2001:db8::/129 is not a number from 1 to 128\n",
        ),
        ("not UTF-8", b"192.0.2.1 \xff\n", "1! 192.0.2.1 \u{fffd} | the line is not UTF-8\n"),
        ("escape sequence", b"\x1b[2J\n", "1! \u{fffd}[2J | \u{fffd}[2J is not an address or a prefix\n"),
        (
            "unknown attribute",
            b"192.0.2.1 SBL1",
            "1! SBL1 | SBL1 is not an attribute; after a prefix may stand reason=TEXT, ttl=10m, shadow, or a comment that begins with # or ;\n",
        ),
        ("ttl without unit", b"192.0.2.1 ttl=5", "1! ttl=5 | 5 has no unit; add a unit, such as 5s\n"),
        (
            "ttl of zero",
            b"192.0.2.1 ttl=0s",
            "1! ttl=0s | a time to live of 0 would be over before it began\n",
        ),
        ("ttl twice", b"192.0.2.1 ttl=1s ttl=2s", "1! ttl=2s | ttl is given twice\n"),
        ("open quote", b"192.0.2.1 reason=\"a b", "1! reason=\"a b | the reason is not a JSON string\n"),
        (
            "quote then text",
            b"192.0.2.1 reason=\"a\"b",
            "1! reason=\"a\"b | a space must follow the closing quote\n",
        ),
        (
            "control in a reason",
            br#"192.0.2.1 reason="\n""#,
            "1! reason=\"\\n\" | a label has no control characters\n",
        ),
        ("empty reason", b"192.0.2.1 reason=", "1! reason= | a label has 1 to 63 bytes, this one has 0\n"),
    ];
    for (name, bytes, expected) in table {
        assert_eq!(summary_as(bytes, &Format::Auto), *expected, "{name}");
    }
}

#[test]
fn long_lines_and_many_errors_are_bounded() {
    let long = vec![b'1'; MAX_LINE_BYTES + 1];
    assert_eq!(
        parse(&long).errors[0].why,
        format!("a line has at most {MAX_LINE_BYTES} bytes, this one has {}", MAX_LINE_BYTES + 1)
    );
    assert_eq!(parse(&long).errors[0].text.chars().count(), MAX_SHOWN_CHARS + 1);
    let feed = parse(&[b"192.0.2.1\n".to_vec(), b"x\n".repeat(1000)].concat());
    assert_eq!((feed.errors.len(), feed.error_count), (MAX_ERRORS, 1000));
}

#[test]
fn what_is_no_list_is_said_once() {
    let table: &[(&str, &[u8], &str)] = &[
        ("words", b"x\ny\n", "; none"),
        ("binary", b"\x7fELF\0\0\0\n\n\xff", "it is not even text"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "packed with gzip; unpack it first"),
        ("web page", b"<!DOCTYPE html>\n<html>\n</html>\n", "like a web page"),
        ("database", b"\0\0\n\xff\n\xab\xcd\xefMaxMind.com\xe9", "like a MaxMind database"),
        ("UTF-16", b"\xff\xfe1\x009\x002\x00", "it is not even text"),
    ];
    for (name, bytes, fragment) in table {
        let feed = parse(bytes);
        assert_eq!((feed.errors.len(), feed.errors[0].line), (1, 1), "{name}");
        let why = &feed.errors[0].why;
        assert!(why.starts_with("this does not look like a list file"), "{name}: {why}");
        assert!(why.contains(fragment.trim_start_matches("; ")), "{name}: {why}");
    }
    // One line is shown as it is, and a file of which some line was understood is a list.
    for bytes in [&b"x"[..], b"x\ny\n192.0.2.0/33\n", b"x\ny\n192.0.2.1"] {
        assert!(!parse(bytes).errors[0].why.contains("look like"), "{bytes:?}");
    }
}

#[test]
fn everything_is_read_only_if_told() {
    let texts: [(&[u8], Format); 6] = [
        (b"0.0.0.0/0", Format::Plain),
        (b"::/0", Format::Plain),
        (b"add x 0.0.0.0-255.255.255.255", Format::Ipset),
        (b"elements = { ::/0 }", Format::Nft),
        (b"{\"cidr\":\"0.0.0.0/0\"}", Format::SpamhausJson),
        (b"x,::/0", Format::Csv { column: Column::Number(2) }),
    ];
    for (bytes, format) in texts {
        let told = parse_as(bytes, &format, Options { allow_everything: true });
        assert_eq!((told.entries.len(), told.error_count), (1, 0), "{format:?}");
        assert_eq!(told.entries[0].prefix.prefix_len(), 0, "{format:?}");
        let untold = parse_as(bytes, &format, Options::default());
        assert_eq!((untold.entries.len(), untold.error_count), (0, 1), "{format:?}");
        assert!(untold.errors[0].why.ends_with("; `--force` takes it"), "{format:?}");
    }
    let host_bits = parse_as(b"192.0.2.1/0", &Format::Plain, Options { allow_everything: true });
    assert!(host_bits.errors[0].why.ends_with("has host bits set; did you mean 0.0.0.0/0?"));
}

#[test]
fn labels_are_stored_once() {
    let feed = parse(b"192.0.2.1 reason=a\n192.0.2.2 reason=b\n192.0.2.3 reason=a\n192.0.2.4\n");
    let reasons: Vec<_> = feed.entries.iter().map(|entry| feed.reason(entry)).collect();
    assert_eq!(reasons, [Some("a"), Some("b"), Some("a"), None]);
    assert_eq!(feed.labels, ["a", "b"]);
}

#[test]
fn samples_of_each_format_are_told_and_read() {
    let csv = |number| Format::Csv { column: Column::Number(number) };
    check(
        "FireHOL",
        include_str!("testdata/level1.netset"),
        &Format::Plain,
        "8: 0.0.0.0/8\n9: 192.0.2.0/24\n10: 198.51.100.7\n",
    );
    check(
        "ipset",
        include_str!("testdata/ipset.save"),
        &Format::Ipset,
        "2: 192.0.2.0/24 reason=\"a b\" ttl=599s\n4: 192.0.2.1\n5: 192.0.2.2\n6: 192.0.2.3\n8: 2001:db8::/32 ttl=599s\n",
    );
    check(
        "nft",
        include_str!("testdata/ruleset.nft"),
        &Format::Nft,
        "7: 192.0.2.0/24 reason=\"ssh scan\" ttl=3599996ms\n7: 198.51.100.1 ttl=7199996ms\n\
         7: 198.51.100.2/31 ttl=7199996ms\n7: 198.51.100.4/30 ttl=7199996ms\n\
         7: 198.51.100.8/31 ttl=7199996ms\n8: 203.0.113.7 ttl=7199996ms\n15: 2001:db8::/32\n\
         16: 2001:db9::1\n16: 2001:db9::2/127\n16: 2001:db9::4/126\n28: 192.0.2.77\n",
    );
    check(
        "Spamhaus",
        include_str!("testdata/drop.json"),
        &Format::SpamhausJson,
        "1: 192.0.2.0/24 reason=SBL256894\n2: 198.51.100.0/24 reason=SBL434604\n\
         3: 2001:db8::/32 reason=SBL256894\n",
    );
    let blocks = include_str!("testdata/asn-blocks.csv");
    check("CSV", blocks, &csv(1), "2: 192.0.2.0/24\n3: 2001:db8::/32\n");
}

#[test]
fn ipset_lines_are_read_or_refused() {
    let table = [
        (
            "short names",
            "-N x hash:ip\n-A x 192.0.2.1\nadd -exist x 192.0.2.2",
            "2: 192.0.2.1\n3: 192.0.2.2\n",
        ),
        (
            "scripts",
            "create x hash:ip\nflush x\nadd x 192.0.2.1\nswap x y\ndestroy x\nCOMMIT",
            "3: 192.0.2.1\n",
        ),
        ("range", "add x 192.0.2.0-192.0.2.3", "1: 192.0.2.0/30\n"),
        ("default timeout", "create x hash:ip timeout 60\nadd x 192.0.2.1", "2: 192.0.2.1 ttl=60s\n"),
        ("its own", "create x hash:ip timeout 60\nadd x 192.0.2.1 timeout 0", "2: 192.0.2.1\n"),
        ("empty comment", "add x 192.0.2.1 comment \"\"", "1: 192.0.2.1\n"),
        ("one word", "add x 192.0.2.1 comment scan", "1: 192.0.2.1 reason=scan\n"),
        (
            "nomatch",
            "add x 192.0.2.1 nomatch",
            "1! nomatch | nomatch takes this out of a larger prefix; put it into the allow list instead\n",
        ),
        (
            "port",
            "create x hash:ip,port\nadd x 192.0.2.1,tcp:22",
            "2! 192.0.2.1,tcp:22 | the entry is an address and more, such as a port; only addresses are listed\n",
        ),
        (
            "netmask",
            "create x hash:ip netmask 24\nadd x 192.0.2.0\nadd y 192.0.2.0",
            "3: 192.0.2.0\n2! 192.0.2.0 | its set has a netmask, so it stands for a network that the line does \
             not name\n",
        ),
        (
            "mark",
            "add x 192.0.2.1 skbmark 0x1",
            "1! skbmark | skbmark is nothing that an entry of a list can have\n",
        ),
        (
            "timeout",
            "add x 192.0.2.1 timeout 1h",
            "1! timeout | a timeout is a number of seconds up to 315360000\n",
        ),
        (
            "long comment",
            "add x 192.0.2.1 comment \"0123456789012345678901234567890123456789012345678901234567890123\"",
            "1! 012345678901234567890123456789012345678901234567890123456789… | a label has 1 to 63 bytes, this \
             one has 64\n",
        ),
        ("open comment", "add x 192.0.2.1 comment \"a", "1! comment | the comment does not end\n"),
        (
            "hardware",
            "add x 02:00:00:00:00:01",
            "1! 02:00:00:00:00:01 | 02:00:00:00:00:01 is not an address or a prefix\n",
        ),
        (
            "deletion",
            "add x 192.0.2.1\ndel x 192.0.2.1",
            "1: 192.0.2.1\n2! del | `del` takes away what other lines add; leave those out instead\n",
        ),
        (
            "host bits",
            "add x 192.0.2.1/24",
            "1! 192.0.2.1/24 | 192.0.2.1/24 has host bits set; did you mean 192.0.2.0/24?\n",
        ),
        (
            "other lines",
            "add x 192.0.2.1\n192.0.2.2",
            "1: 192.0.2.1\n2! 192.0.2.2 | the line is not one of `ipset save`\n",
        ),
    ];
    for (name, text, expected) in table {
        check(name, text, &Format::Ipset, expected);
    }
}

#[test]
fn nft_elements_are_read_or_refused() {
    let in_set = |lines: &str| format!("table ip t {{\n set s {{\n{lines}\n }}\n}}\n");
    let table = [
        ("bare", "elements = { 192.0.2.1,\n192.0.2.2 }".to_owned(), "1: 192.0.2.1\n2: 192.0.2.2\n"),
        (
            "tight",
            "set s{type ipv4_addr;elements={192.0.2.1,192.0.2.2}}".to_owned(),
            "1: 192.0.2.1\n1: 192.0.2.2\n",
        ),
        (
            "script",
            "#!/usr/sbin/nft -f\nadd element ip t s { 192.0.2.1 timeout 1m }".to_owned(),
            "2: 192.0.2.1 ttl=60s\n",
        ),
        ("type of", in_set("typeof ip saddr\nelements = { 192.0.2.1 }"), "4: 192.0.2.1\n"),
        (
            "default timeout",
            in_set("type ipv4_addr; timeout 2h\nelements = { 192.0.2.1 }"),
            "4: 192.0.2.1 ttl=7200s\n",
        ),
        ("never", in_set("timeout 2h\nelements = { 192.0.2.1 timeout never }"), "4: 192.0.2.1\n"),
        ("last instant", in_set("elements = { 192.0.2.1 timeout 2h expires 0s }"), "3: 192.0.2.1 ttl=1ms\n"),
        (
            "comment",
            in_set("elements = { 192.0.2.1 comment \"a, { b\" last used 3s }"),
            "3: 192.0.2.1 reason=\"a, { b\"\n",
        ),
        ("trailing comma", in_set("elements = { 192.0.2.1, }"), "3: 192.0.2.1\n"),
        ("everything but one", in_set("elements = { 0.0.0.0-127.255.255.255 }"), "3: 0.0.0.0/1\n"),
        (
            "range of two families",
            in_set("elements = { 192.0.2.1-2001:db8::, 192.0.2.2-192.0.2.1 }"),
            "3! 192.0.2.1-2001:db8:: | a range has two addresses of one family\n\
             3! 192.0.2.2-192.0.2.1 | the range ends before it begins\n",
        ),
        (
            "no addresses",
            in_set(
                "type inet_service\nelements = { 22, 80 }\n}\nset i {\ntypeof meta iifname\nelements = { \"lo\" }",
            ),
            "",
        ),
        (
            "a map of ports",
            "table ip t {\nmap m {\ntype inet_service : ipv4_addr\nelements = { 22 : 192.0.2.1 }\n}\n}"
                .to_owned(),
            "",
        ),
        (
            "addresses and ports",
            in_set("type ipv4_addr . inet_service\nelements = { 192.0.2.1 . 22 }"),
            "4! inet_service | the set holds more than addresses; only sets of addresses are read\n",
        ),
        (
            "map",
            "table ip t {\nmap m {\ntype ipv4_addr : verdict\nelements = { 192.0.2.1 : drop }\n}\n}"
                .to_owned(),
            "4! elements | these are of a map; only sets are read\n",
        ),
        ("catch-all", in_set("elements = { * }"), "3! * | * is not an address or a prefix\n"),
        (
            "limit",
            in_set("elements = { 192.0.2.1 limit rate 1/second }"),
            "3! limit | limit is nothing that an entry of a list can have\n",
        ),
        (
            "cut off",
            "table ip t {\nset s {\nelements = { 192.0.2.1,\n192.0.2.2".to_owned(),
            "3: 192.0.2.1\n4: 192.0.2.2\n\
             2! { | the block that begins here is not closed; is the file whole?\n\
             3! { | the block that begins here is not closed; is the file whole?\n",
        ),
        (
            "deletion",
            "delete element ip t s { 192.0.2.1 }".to_owned(),
            "1! delete | this takes away what others add; leave those out instead\n",
        ),
        (
            "definition",
            "define bad = { 192.0.2.1 }".to_owned(),
            "1! define | only the elements of sets are read, not definitions\n",
        ),
        (
            "blocks within blocks",
            "table ip t {\nchain c {\nip saddr { 192.0.2.1 } drop\nelements = { 192.0.2.2 }\n}\n}".to_owned(),
            "",
        ),
        ("chains", "table ip t {\nchain c {\nip saddr { 192.0.2.1, 192.0.2.2 } drop\n}\n}".to_owned(), ""),
    ];
    for (name, text, expected) in table {
        check(name, &text, &Format::Nft, expected);
    }
}

#[test]
fn json_lines_are_read_or_refused() {
    let table = [
        ("no id", "{\"cidr\":\"192.0.2.0/24\"}\r\n\r\n", "1: 192.0.2.0/24\n"),
        ("null id", "{\"cidr\":\"192.0.2.0/24\",\"sblid\":null}", "1: 192.0.2.0/24\n"),
        ("escapes", "{\"cidr\":\"192.0.2.0\\/24\",\"sblid\":\"a\\u00e9\"}", "1: 192.0.2.0/24 reason=aé\n"),
        (
            "host bits",
            "{\"cidr\":\"192.0.2.1/24\"}",
            "1! 192.0.2.1/24 | 192.0.2.1/24 has host bits set; did you mean 192.0.2.0/24?\n",
        ),
        (
            "no cidr",
            "{\"cidr\":\"192.0.2.0/24\"}\n{\"asn\":64496}",
            "1: 192.0.2.0/24\n2! {\"asn\":64496} | the object has no member `cidr`\n",
        ),
        (
            "no JSON",
            "{\"cidr\":\"192.0.2.0/24\"}\n{\"cidr\":",
            "1: 192.0.2.0/24\n2! {\"cidr\": | the line is not a JSON object with a member `cidr`\n",
        ),
        (
            "control",
            "{\"cidr\":\"192.0.2.0/24\",\"sblid\":\"\\n\"}",
            "1! {\"cidr\":\"192.0.2.0/24\",\"sblid\":\"\\n\"} | a label has no control characters\n",
        ),
    ];
    for (name, text, expected) in table {
        check(name, text, &Format::SpamhausJson, expected);
    }
}

#[test]
fn csv_columns_are_found_by_number() {
    let table = [
        ("no header", 1, "192.0.2.0/24,spam\n2001:db8::/32,scan\n", "1: 192.0.2.0/24\n2: 2001:db8::/32\n"),
        ("semicolons", 2, "name;address\nx;192.0.2.1\n", "2: 192.0.2.1\n"),
        ("tabs", 2, "name\taddress\nx\t192.0.2.1\r\ny\t192.0.2.2\r\n", "2: 192.0.2.1\n3: 192.0.2.2\n"),
        (
            "comments and quotes",
            2,
            "# Feodo\n#\n\n\"first_seen\",\"dst_ip\",\"port\"\n\"2024-11-25 03:20\",\"192.0.2.1\",\"443\"\n# END 1 entry\n",
            "5: 192.0.2.1\n",
        ),
        ("quoted", 1, "\"192.0.2.1\",\"a \"\"b\"\", c\"\n", "1: 192.0.2.1\n"),
        ("lines in quotes", 1, "192.0.2.1,\"a\nb\nc\"\n192.0.2.2,d\n", "1: 192.0.2.1\n4: 192.0.2.2\n"),
        ("ranges", 2, "a,range\nx,192.0.2.0-192.0.2.2\n", "2: 192.0.2.0/31\n2: 192.0.2.2\n"),
        ("blanks", 2, "x , 192.0.2.1 , y\n", "1: 192.0.2.1\n"),
        ("short row", 2, "x,192.0.2.1\ny\n", "1: 192.0.2.1\n2! y | the row has no column 2, only 1\n"),
        (
            "no address",
            2,
            "name,address\nx,192.0.2.1\ny,\nz,192.0.2.0/33\n",
            "2: 192.0.2.1\n3!  |  is not an address or a prefix\n\
             4! 192.0.2.0/33 | the prefix length of 192.0.2.0/33 is not a number from 1 to 32\n",
        ),
    ];
    for (name, number, text, expected) in table {
        check(name, text, &Format::Csv { column: Column::Number(number) }, expected);
    }
}

#[test]
fn csv_columns_are_found_by_name() {
    let open = format!("a,network\n\"x,192.0.2.1\n{}", "y,192.0.2.2\n".repeat(1000));
    let table = [
        ("name", "start,Network\n192.0.2.1,192.0.2.0/24\n", "2: 192.0.2.0/24\n"),
        ("range", "network;x\n192.0.2.0-192.0.2.3;y\n", "2: 192.0.2.0/30\n"),
        ("no such", "a,b\n1,2\n", "1! network | no column is called network; there are: a, b\n"),
        ("empty", "", ""),
    ];
    let format = Format::Csv { column: Column::Name("network".to_owned()) };
    for (name, text, expected) in table {
        assert_eq!(summary_as(text.as_bytes(), &format), expected, "{name}");
    }
    let feed = parse_as(open.as_bytes(), &format, Options::default());
    assert_eq!((feed.entries.len(), feed.error_count, feed.errors[0].line), (1000, 1, 2));
    let zero = Format::Csv { column: Column::Number(0) };
    assert_eq!(summary_as(b"x", &zero), "1! 0 | columns are counted from 1\n");
    // A mistyped address in the first row is no heading.
    let first = Format::Csv { column: Column::Number(1) };
    assert_eq!(summary_as(b"192.0.2.,x\n", &first), "1! 192.0.2. | 192.0.2. is not an address or a prefix\n");
}

#[test]
fn what_cannot_be_told_is_plain() {
    let table = [
        ("nothing", ""),
        ("comments", "# a\n; b\n"),
        ("an attribute", "192.0.2.1 reason=a,b"),
        ("a comment with columns", "192.0.2.1 # a,b,c\n"),
        ("a wrong attribute", "192.0.2.1 SBL1"),
        ("ends of ranges", "start,end\n192.0.2.1,192.0.2.9\n"),
        ("a word", "create"),
        ("rubbish", "a;b;c\n\0\0\0"),
    ];
    for (name, text) in table {
        assert_eq!(detect::format_of(text.as_bytes()), Format::Plain, "{name}");
    }
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 1..=32u8)
        .prop_map(|(bits, length)| IpNet::new_assert(Ipv4Addr::from(bits).into(), length).trunc());
    let v6 = (any::<u128>(), 1..=128u8)
        .prop_map(|(bits, length)| IpNet::new_assert(std::net::Ipv6Addr::from(bits).into(), length).trunc());
    prop_oneof![v4, v6]
        .prop_filter("neither mapped nor everything", |net| read_prefix(&net.to_string()).is_ok())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        prefix in any_prefix(),
        reason in proptest::option::of("[ -~éß\u{4e00}]{1,21}"),
        ttl in proptest::option::of(1..=MAX_DURATION.as_millis() as u64),
        shadow: bool,
    ) {
        let ttl = ttl.map(Duration::from_millis);
        let mut text = String::new();
        write_line(&mut text, prefix, reason.as_deref(), ttl, shadow);
        let feed = parse(text.as_bytes());
        prop_assert_eq!(&feed.errors, &vec![]);
        prop_assert_eq!(feed.entries.len(), 1);
        let entry = &feed.entries[0];
        prop_assert_eq!((entry.line, entry.prefix, entry.shadow), (1, prefix, shadow));
        prop_assert_eq!(feed.reason(entry), reason.as_deref());
        prop_assert_eq!(u128::from(entry.ttl_ms), ttl.unwrap_or_default().as_millis());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for format in formats() {
            let feed = parse_as(&bytes, &format, Options::default());
            prop_assert!(feed.errors.len() <= feed.error_count);
        }
    }

    #[test]
    fn no_line_panics(text in "[0-9a-f:./]{1,20}( (reason=|ttl=|shadow|\"|[a-z0-9\\\\\"= #;]){0,8})?") {
        parse(text.as_bytes());
    }

    #[test]
    fn no_words_panic(words in proptest::collection::vec(any_word(), 0..40)) {
        let text = words.concat();
        for format in formats() {
            let feed = parse_as(text.as_bytes(), &format, Options::default());
            for entry in &feed.entries {
                prop_assert!(entry.line as usize <= words.len() + 1);
                prop_assert_eq!(read_prefix(&entry.prefix.to_string()), Ok(entry.prefix));
            }
        }
    }

    #[test]
    fn every_format_says_the_same(prefixes in proptest::collection::vec(any_prefix(), 1..20)) {
        let list = |before: &str, join: &str, after: &str| {
            let texts: Vec<_> = prefixes.iter().map(IpNet::to_string).collect();
            format!("{before}{}{after}", texts.join(join))
        };
        let files = [
            list("", "\n", ""),
            list("add x ", "\nadd x ", ""),
            list("elements = { ", ", ", " }"),
            list("{\"cidr\":\"", "\"}\n{\"cidr\":\"", "\"}"),
            list("a,", "\na,", ""),
        ];
        for file in files {
            let feed = parse(file.as_bytes());
            prop_assert_eq!(feed.error_count, 0);
            prop_assert_eq!(feed.entries.iter().map(|entry| entry.prefix).collect::<Vec<_>>(), prefixes.clone());
        }
    }
}

fn formats() -> [Format; 7] {
    let csv = |column| Format::Csv { column };
    let named = csv(Column::Name("ip".to_owned()));
    let numbered = csv(Column::Number(2));
    [Format::Auto, Format::Plain, Format::Ipset, Format::Nft, Format::SpamhausJson, named, numbered]
}

/// What the formats are made of, in no order.
fn any_word() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "\n",
        " ",
        ",",
        ";",
        "\t",
        "\"",
        "{",
        "}",
        "=",
        "#",
        "\r",
        "\\",
        "-",
        "/",
        "add ",
        "create ",
        "x ",
        "hash:ip ",
        "timeout ",
        "comment ",
        "60",
        "1h",
        "expires ",
        "elements = { ",
        "set s { ",
        "table t { ",
        "192.0.2.1",
        "192.0.2.0/24",
        "2001:db8::",
        "0.0.0.0-255.255.255.255",
        "192.0.2.1-192.0.2.9",
        "ip",
        "{\"cidr\":\"192.0.2.0/24\"}",
        "{\"type\":\"metadata\"}",
        "é",
        "nomatch",
        "shadow",
        "type ",
    ])
}
