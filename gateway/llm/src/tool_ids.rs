//! Identities of tool calls, and names of tools, made to fit where a dialect allows fewer of them than another.
//!
//! Servers of OpenAI's dialect call a call `functions.weather:0` or give it 200 characters; Anthropic takes 64 letters,
//! digits, `_` and `-`, Mistral nine letters and digits. Whoever writes such a dialect writes [`fit`] of an identity, and
//! whoever reads it reads [`restore`], so that a provider gets back what it said, also from clients that speak another
//! dialect. A table of identities beside the conversation would do that too, but would have to be shared by all
//! gateways that a client may reach next.
//!
//! What fits stays as it is. What has characters that do not fit is escaped, which [`restore`] undoes. What is too long
//! for that becomes a hash of itself: nobody can undo it, but call and result still name the same, in each request.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Before what was escaped.
const ESCAPED: &str = "gwi-";
/// Before a hash.
const HASHED: &str = "gwh-";

/// What a dialect allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Letters, digits, `_` and `-`; from one to as many as are named here, which must be 40 at least (Anthropic: 64,
    /// and for names of tools 128).
    Words(usize),
    /// Anything, up to as many bytes as are named here, which must be 40 at least (OpenAI).
    UpTo(usize),
    /// Exactly as many letters and digits (Mistral: 9).
    Exactly(usize),
}

/// An identity as a dialect allows it.
#[must_use]
pub fn fit(id: &str, shape: Shape) -> Cow<'_, str> {
    let fits = match shape {
        // What looks as if it were made here must not be taken for that when it comes back.
        Shape::Words(most) => {
            is_words(id, most) && ![ESCAPED, HASHED].iter().any(|mark| id.starts_with(mark))
        }
        Shape::UpTo(most) => id.len() <= most,
        Shape::Exactly(length) => id.len() == length && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
    };
    if fits {
        return Cow::Borrowed(id);
    }
    Cow::Owned(match shape {
        Shape::Words(most) => escaped(id, most).unwrap_or_else(|| hashed(id)),
        Shape::UpTo(_) => hashed(id),
        Shape::Exactly(length) => letters(hash(id), length),
    })
}

/// A name that must be restored exactly, since somebody looks it up: none if it cannot be.
#[must_use]
pub fn fit_name(name: &str, most: usize) -> Option<Cow<'_, str>> {
    let fitted = fit(name, Shape::Words(most));
    (restore(Cow::Borrowed(&*fitted)) == name).then_some(fitted)
}

/// The identity that [`fit`] escaped. One that was not escaped stays as it is.
#[must_use]
pub fn restore(id: Cow<'_, str>) -> Cow<'_, str> {
    match id.strip_prefix(ESCAPED).and_then(unescaped) {
        // Only what `fit` would have written is taken for its work.
        Some(original) if escaped(&original, usize::MAX).as_deref() == Some(&*id) => Cow::Owned(original),
        _ => id,
    }
}

fn is_words(id: &str, most: usize) -> bool {
    (1..=most).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// With a hyphen and two digits for each byte that does not fit, and two hyphens for a hyphen.
fn escaped(id: &str, most: usize) -> Option<String> {
    let mut out = String::with_capacity(ESCAPED.len() + id.len() + 8);
    out.push_str(ESCAPED);
    for byte in id.bytes() {
        match byte {
            b'-' => out.push_str("--"),
            b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(char::from(byte)),
            _ => {
                // Writing into a string cannot fail.
                let _ = write!(out, "-{byte:02X}");
            }
        }
        if out.len() > most {
            return None;
        }
    }
    Some(out)
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'-' {
            out.push(byte);
            continue;
        }
        let first = bytes.next()?;
        if first == b'-' {
            out.push(b'-');
        } else {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(first)? * 16 + digit(bytes.next()?)?;
            out.push(u8::try_from(value).ok()?);
        }
    }
    String::from_utf8(out).ok()
}

fn hashed(id: &str) -> String {
    format!("{HASHED}{:032x}", hash(id))
}

/// FNV-1a of 128 bits. It need not withstand an attacker, who could only confuse calls of a conversation of his own; but
/// it must be the same in each version of the gateway, which the standard library's hash does not promise.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

fn letters(hash: u128, length: usize) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    // Both halves count: the low bits alone depend on the low bits of the text alone.
    let mut rest = hash ^ (hash >> 64);
    (0..length)
        .map(|_| {
            let letter = LETTERS[usize::try_from(rest % 62).unwrap_or(0)];
            rest /= 62;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const ANTHROPIC: Shape = Shape::Words(64);

    #[test]
    fn identities_fit() {
        let long = "x".repeat(65);
        for (id, shape, expected) in [
            ("toolu_01A-b", ANTHROPIC, "toolu_01A-b"),
            ("functions.weather:0", ANTHROPIC, "gwi-functions-2Eweather-3A0"),
            ("a-b.c", ANTHROPIC, "gwi-a--b-2Ec"),
            ("", ANTHROPIC, "gwi-"),
            ("é", ANTHROPIC, "gwi--C3-A9"),
            ("gwi-a", ANTHROPIC, "gwi-gwi--a"),
            ("gwh-a", ANTHROPIC, "gwi-gwh--a"),
            (&long, ANTHROPIC, "gwh-e09d1c9073eb86771c3233a27c7d3d77"),
            ("functions.weather:0", Shape::UpTo(40), "functions.weather:0"),
            (&long, Shape::UpTo(40), "gwh-e09d1c9073eb86771c3233a27c7d3d77"),
            ("abcDEF123", Shape::Exactly(9), "abcDEF123"),
            ("toolu_01A", Shape::Exactly(9), "?"),
            ("", Shape::Exactly(9), "?"),
        ] {
            let fitted = fit(id, shape);
            if expected != "?" {
                assert_eq!(fitted, expected, "{id}");
            }
            if shape == ANTHROPIC && id.len() < 64 {
                assert_eq!(restore(fitted), id);
            }
        }
    }

    #[test]
    fn what_was_not_escaped_here_stays() {
        for id in ["gwi--", "gwi--2", "gwi--2e", "gwi--41", "gwi--FF", "gwi-", "call_1", "gwh-00"] {
            let expected = if id == "gwi-" { "" } else { id };
            assert_eq!(restore(Cow::Borrowed(id)), expected, "{id}");
        }
    }

    #[test]
    fn names_that_cannot_be_restored_are_refused() {
        assert_eq!(fit_name("mail.send", 128).as_deref(), Some("gwi-mail-2Esend"));
        assert_eq!(fit_name(&"a".repeat(128), 128).as_deref(), Some(&*"a".repeat(128)));
        assert_eq!(fit_name(&"a".repeat(129), 128), None);
        assert_eq!(fit_name(&".".repeat(50), 128), None);
    }

    #[test]
    fn short_identities_are_told_apart() {
        let ids: Vec<String> = (0..20_000).map(|n| format!("call_{n}")).collect();
        let fitted: HashSet<String> = ids.iter().map(|id| fit(id, Shape::Exactly(9)).into_owned()).collect();
        assert_eq!(fitted.len(), ids.len());
    }

    proptest! {
        /// What is written fits, comes back where it can, and stays apart from others.
        #[test]
        fn fitted_identities_are_reversible(id in "(gwi-|gwh-|)[a-zA-Z0-9_.:|é-]{0,70}", other in ".{0,20}") {
            let fitted = fit(&id, ANTHROPIC);
            prop_assert!(is_words(&fitted, 64));
            if !fitted.starts_with(HASHED) {
                prop_assert_eq!(&*restore(fitted.clone()), &*id);
            }
            prop_assert_eq!(fit(&other, ANTHROPIC) == fitted, other == id);
            let nine = fit(&id, Shape::Exactly(9));
            prop_assert!(nine.len() == 9 && nine.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            prop_assert!(fit(&id, Shape::UpTo(40)).len() <= 40);
        }

        #[test]
        fn restoring_takes_anything(id in ".{0,40}", rest in "[-0-9A-F]{0,20}") {
            let _ = restore(Cow::Borrowed(&*id));
            let _ = restore(Cow::Owned(format!("{ESCAPED}{rest}")));
        }
    }
}
