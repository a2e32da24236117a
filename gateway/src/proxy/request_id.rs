//! A name for each request, by which its traces in several logs are found: X-Request-Id.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::random::Random;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Bytes of one that somebody else gave.
const MAX_BYTES: usize = 128;

/// Sees to it that a request has one, and gives it. Of a client's own only a trusted proxy's counts: others could make
/// their requests look like somebody else's.
pub(super) fn ensure(headers: &mut HeaderMap, is_trusted: bool, random: &Random) -> HeaderValue {
    let mut known = headers.get_all(X_REQUEST_ID).iter();
    if let (Some(id), None) = (known.next(), known.next())
        && is_trusted
        && is_plain(id.as_bytes())
    {
        return id.clone();
    }
    // Hexadecimal digits are a valid value.
    let id = HeaderValue::try_from(format!("{:016x}{:016x}", random.next(), random.next()));
    let id = id.unwrap_or(HeaderValue::from_static("none"));
    headers.insert(X_REQUEST_ID, id.clone());
    id
}

fn is_plain(id: &[u8]) -> bool {
    (1..=MAX_BYTES).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/+=".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_or_made() {
        let long = "x".repeat(129);
        for (name, sent, is_trusted, kept) in [
            ("none", &[][..], true, false),
            ("a trusted proxy's", &["abc-123"][..], true, true),
            ("a client's", &["abc-123"], false, false),
            ("two", &["a", "b"], true, false),
            ("an empty one", &[""], true, false),
            ("a quote", &["a\"b"], true, false),
            ("a long one", &[long.as_str()], true, false),
        ] {
            let mut headers = HeaderMap::new();
            for id in sent {
                headers.append(X_REQUEST_ID, HeaderValue::from_str(id).unwrap());
            }
            let random = Random::seeded(1);
            let id = ensure(&mut headers, is_trusted, &random);
            assert_eq!(headers.get_all(X_REQUEST_ID).iter().collect::<Vec<_>>(), [&id], "{name}");
            assert_eq!(Some(&id.to_str().unwrap()) == sent.first(), kept, "{name}");
            if !kept {
                assert_eq!(id.len(), 32, "{name}");
                assert_ne!(ensure(&mut HeaderMap::new(), is_trusted, &random), id, "{name}");
            }
        }
    }
}
