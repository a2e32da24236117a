//! Any bytes are requests, the beginning of one, or none: however they are cut, the same ones, and the parser behind
//! finds in each what the doorman found.
#![no_main]

use gateway::proxy::fuzzing::messages;
use libfuzzer_sys::fuzz_target;

const MAX_BYTES: usize = 512;
const MAX_FIELDS: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let pieces = [usize::from(cut & 7) + 1, usize::from(cut >> 3) + 1];
    let passed = messages(bytes, &[bytes.len().max(1)], MAX_BYTES, MAX_FIELDS);
    assert_eq!(messages(bytes, &pieces, MAX_BYTES, MAX_FIELDS), passed, "in pieces of {pieces:?}");
    for message in &passed.messages {
        check(message);
    }
});

/// The parser that stands behind the doorman finds the same end and the same framing.
fn check(message: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = request.parse(message).expect("the parser takes what is passed").unwrap();
    assert!(length <= MAX_BYTES);
    let head = &message[..length];
    assert_eq!(count(head, b"\n"), count(head, b"\r\n"), "LF alone");
    assert_eq!(count(head, b"\r"), count(head, b"\r\n"), "CR alone");
    let body = &message[length..];
    let values = |name: &str| {
        let named = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect::<Vec<_>>()
    };
    match (values("content-length").as_slice(), values("transfer-encoding").as_slice()) {
        ([], []) => assert!(body.is_empty()),
        ([length], []) => assert_eq!(std::str::from_utf8(length).unwrap().parse(), Ok(body.len())),
        ([], [coding]) => assert!(coding.eq_ignore_ascii_case(b"chunked") && body.ends_with(b"\r\n\r\n")),
        _ => panic!("framed in more than one way"),
    }
}

/// How often this occurs.
fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}
