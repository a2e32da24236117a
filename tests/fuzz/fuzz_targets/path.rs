//! Any text is a path or none: its normal form is its own, and neither a server that decodes nothing nor one that
//! decodes everything at once finds a way up in what the upstream gets.
#![no_main]

use gateway::proxy::fuzzing::normalise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A request with one of those has been refused by then.
    if text.contains(|c: char| c.is_ascii_control()) {
        return;
    }
    let path = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    let Some((normal, is_rewritten)) = normalise(&path) else { return };
    assert!(normal.starts_with('/'), "{path:?} became {normal:?}");
    assert_eq!(normalise(&normal), Some((normal.clone(), false)), "{path:?}");
    let sent = if is_rewritten { &normal } else { &path };
    for read in [sent.as_bytes().to_vec(), decode(sent.as_bytes()), decode(normal.as_bytes())] {
        let climbs = |segment: &[u8]| {
            let name = segment.split(|byte| *byte == b';').next();
            name.is_some_and(|name| name == b"." || name == b"..")
        };
        assert!(!read.split(|byte| matches!(byte, b'/' | b'\\')).any(climbs), "{path:?} became {sent:?}");
    }
});

/// What a server makes of escapes that looks at nothing else.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, behind @ ..] = rest {
        let digits =
            behind.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    out
}
