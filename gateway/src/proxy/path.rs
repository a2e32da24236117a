//! Brings a request's path into the one form that routes are matched against, or refuses it.
//!
//! Two servers that read one path differently are how a request reaches what its route was to keep away
//! from it. So a path that servers are known to disagree about is refused, not guessed at.

use std::borrow::Cow;

/// Why a path has no single meaning. The text is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous(pub(super) &'static str);

/// A path ready for matching.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Normal<'a> {
    /// What routes are matched against.
    pub(super) path: Cow<'a, str>,
    /// Dot segments were resolved: the upstream must get this path, not the one the client sent, because
    /// it may resolve them differently.
    pub(super) rewritten: bool,
}

/// Normalises as RFC 3986, section 6.2.2 says: percent-encoded unreserved characters are decoded, other
/// escapes are written in upper case, dot segments are resolved. Empty segments stay, they mean something.
///
/// # Errors
/// Encoded slashes, backslashes and NUL, incomplete escapes, `..` above the root, dot segments with parameters
/// (`/..;x/`), which some servers resolve and others do not, and characters in more bytes than UTF-8 takes for them,
/// which some servers decode to a dot or a slash.
pub(super) fn normalise(path: &str) -> Result<Normal<'_>, Ambiguous> {
    if is_normal(path.as_bytes()) {
        return Ok(Normal { path: Cow::Borrowed(path), rewritten: false });
    }
    let decoded = decode_unreserved(path)?;
    if !decoded.contains("/.") {
        return Ok(Normal { path: Cow::Owned(decoded), rewritten: false });
    }
    let resolved = resolve_dots(&decoded)?;
    let rewritten = resolved != decoded;
    Ok(Normal { path: Cow::Owned(resolved), rewritten })
}

/// Whether there is nothing to do: the case of nearly every request, found in one pass.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        if byte == b'%' || byte == b'\\' || (byte == b'.' && previous == b'/') {
            return false;
        }
        previous = byte;
    }
    true
}

fn decode_unreserved(path: &str) -> Result<String, Ambiguous> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        if after.starts_with('\\') {
            return Err(Ambiguous("the path holds a backslash"));
        }
        let digits = after.as_bytes().get(1..3).ok_or(Ambiguous("the path ends within a percent escape"))?;
        let byte = hex(digits).ok_or(Ambiguous("the path holds an invalid percent escape"))?;
        match byte {
            b'/' => return Err(Ambiguous("the path holds an encoded slash")),
            b'\\' => return Err(Ambiguous("the path holds an encoded backslash")),
            0 => return Err(Ambiguous("the path holds an encoded NUL")),
            _ if is_overlong(byte, &after[3..]) => {
                return Err(Ambiguous("the path holds an overlong escape"));
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.extend(digits.iter().map(|digit| char::from(digit.to_ascii_uppercase())));
            }
        }
        // Both digits are ASCII, so this is a character boundary.
        rest = &after[3..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether this byte and the escape behind it begin a character that UTF-8 would write in fewer bytes.
fn is_overlong(byte: u8, behind: &str) -> bool {
    let next = behind.strip_prefix('%').and_then(|digits| hex(digits.as_bytes().get(..2)?));
    matches!(
        (byte, next),
        (0xc0 | 0xc1, Some(0x80..=0xbf)) | (0xe0, Some(0x80..=0x9f)) | (0xf0, Some(0x80..=0x8f))
    )
}

fn hex(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Resolves `.` and `..`. The path starts with a slash, so the first piece is empty and stays.
fn resolve_dots(path: &str) -> Result<String, Ambiguous> {
    let mut segments: Vec<&str> = Vec::new();
    let mut pieces = path.split('/').peekable();
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none();
        match piece {
            "." => {}
            ".." => {
                if segments.len() < 2 {
                    return Err(Ambiguous("the path climbs above the root"));
                }
                segments.pop();
            }
            _ if is_dots_with_parameters(piece) => {
                return Err(Ambiguous("the path holds a dot segment with parameters"));
            }
            _ => {
                segments.push(piece);
                continue;
            }
        }
        // `/a/.` and `/a/b/..` name directories: the slash stays.
        if last {
            segments.push("");
        }
    }
    Ok(segments.join("/"))
}

/// The semicolon may be encoded: who decodes first and looks for parameters then finds them all the same.
fn is_dots_with_parameters(segment: &str) -> bool {
    let behind = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    behind.is_some_and(|behind| behind.starts_with(';') || behind.starts_with("%3B"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Result<(&str, bool), &str>) {
        let got = normalise(path);
        let got = got.as_ref().map(|n| (n.path.as_ref(), n.rewritten)).map_err(|e| e.0);
        assert_eq!(got, expected, "path {path:?}");
    }

    #[test]
    fn paths_are_normalised_or_refused() {
        for (path, expected) in [
            ("/", Ok(("/", false))),
            ("*", Ok(("*", false))),
            ("/a/b", Ok(("/a/b", false))),
            ("/a//b/", Ok(("/a//b/", false))),
            ("/%61bc", Ok(("/abc", false))),
            ("/a%2db%7E", Ok(("/a-b~", false))),
            ("/a%3ab", Ok(("/a%3Ab", false))),
            ("/a%20b", Ok(("/a%20b", false))),
            ("/.well-known/x", Ok(("/.well-known/x", false))),
            ("/a/...", Ok(("/a/...", false))),
            ("/a/./b", Ok(("/a/b", true))),
            ("/a/.", Ok(("/a/", true))),
            ("/a/../b", Ok(("/b", true))),
            ("/a/..", Ok(("/", true))),
            ("/a/b/..", Ok(("/a/", true))),
            ("/a/%2e%2E/b", Ok(("/b", true))),
            ("/a//../b", Ok(("/a/b", true))),
            ("/a%2fb", Err("the path holds an encoded slash")),
            ("/a%5Cb", Err("the path holds an encoded backslash")),
            ("/a\\b", Err("the path holds a backslash")),
            ("/a%00", Err("the path holds an encoded NUL")),
            ("/%c0%ae%c0%ae/a", Err("the path holds an overlong escape")),
            ("/a%C1%9cb", Err("the path holds an overlong escape")),
            ("/a%e0%80%af", Err("the path holds an overlong escape")),
            ("/a%f0%80%80%af", Err("the path holds an overlong escape")),
            ("/%c0b%c1", Ok(("/%C0b%C1", false))),
            ("/%e0%a4%85", Ok(("/%E0%A4%85", false))),
            ("/a%", Err("the path ends within a percent escape")),
            ("/a%4", Err("the path ends within a percent escape")),
            ("/a%zz", Err("the path holds an invalid percent escape")),
            ("/a%+1", Err("the path holds an invalid percent escape")),
            ("/..", Err("the path climbs above the root")),
            ("/a/../../b", Err("the path climbs above the root")),
            ("/a/..;x/b", Err("the path holds a dot segment with parameters")),
            ("/a/..%3bx/b", Err("the path holds a dot segment with parameters")),
            ("/a/.%3B/b", Err("the path holds a dot segment with parameters")),
            ("/a/...;x", Ok(("/a/...;x", false))),
            ("/a/%2e;/b", Err("the path holds a dot segment with parameters")),
        ] {
            check(path, expected);
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_is_its_own_normal_form(path in "(/[a.%2eEfF;~\\-]{0,6}){1,6}") {
            if let Ok(normal) = normalise(&path) {
                let again = normalise(&normal.path).expect("a normal form is accepted");
                prop_assert_eq!(again.path.as_ref(), normal.path.as_ref());
                prop_assert!(!again.rewritten);
                prop_assert!(!normal.path.split('/').any(|s| s == "." || s == ".."));
                prop_assert!(normal.path.starts_with('/'));
            }
        }

        #[test]
        fn any_text_is_handled(path in "\\PC{0,40}") {
            let _ = normalise(&path);
        }

        #[test]
        fn escaping_unreserved_characters_changes_nothing(
            path in "(/[a-c.]{0,3}){1,5}",
            escaped in proptest::collection::vec(any::<bool>(), 32),
        ) {
            let written: String = path
                .chars()
                .zip(escaped.iter().cycle())
                .map(|(c, e)| if *e && c != '/' { format!("%{:02x}", u32::from(c)) } else { c.to_string() })
                .collect();
            let plain = normalise(&path).map(|n| n.path.into_owned());
            let other = normalise(&written).map(|n| n.path.into_owned());
            prop_assert_eq!(plain, other);
        }
    }
}
