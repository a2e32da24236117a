//! The cookies that a request has (RFC 6265, section 4.2).

use http::HeaderMap;
use http::header::COOKIE;

/// Names and values, on every line, in order.
pub(super) fn all(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        Some((&pair[..equals], &pair[equals + 1..]))
    })
}

/// The first value of this name.
pub(super) fn first<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    all(headers).find(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_the_first_of_its_name() {
        let mut headers = HeaderMap::new();
        for line in ["a=1; b=x=y;c=", "late=z; a=2", "novalue; ;é=ü; =empty"] {
            headers.append(COOKIE, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        for (name, expected) in [
            ("a", Some("1")),
            ("b", Some("x=y")),
            ("c", Some("")),
            ("late", Some("z")),
            ("é", Some("ü")),
            ("", Some("empty")),
            ("novalue", None),
            ("A", None),
            ("lat", None),
        ] {
            assert_eq!(first(&headers, name), expected.map(str::as_bytes), "{name}");
        }
    }
}
