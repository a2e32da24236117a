//! Any Accept is read; what it says of a media type is a quality, and none where it does not name it.
#![no_main]

use gateway::model::MediaType;
use gateway::proxy::fuzzing::accepted;
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (wanted, accept) = input;
    let (Ok(wanted), Ok(value)) = (MediaType::new(wanted), HeaderValue::from_bytes(accept)) else { return };
    let quality = accepted(value, &wanted);
    assert!(quality <= 1000, "{wanted} by {accept:?}: {quality}");
    let named = accept.to_ascii_lowercase();
    let essence = wanted.essence.to_ascii_lowercase();
    let is_named = named.windows(essence.len()).any(|part| part == essence.as_bytes());
    assert!(quality == 0 || is_named, "{wanted} by {accept:?}: {quality}");
});
