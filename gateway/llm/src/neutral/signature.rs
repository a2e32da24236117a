//! What a provider signed or encrypted, on its way through clients that speak another dialect.
//!
//! A signature must come back to the provider byte for byte, and to no other. A client's dialect that has a field for
//! its own provider's signatures carries those of others in it, with a mark that says whose they are.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::Text;
use crate::dialect::Dialect;

/// Before a signature that travels in a foreign field.
const MARK: &str = "gw1.";

/// What the mark looks like in base64. Gemini's field is bytes: its SDKs decode it, and refuse what is not base64.
const MARK_IN_BASE64: &str = "Z3cxL";

/// Some of Google's SDKs write bytes in the alphabet of URLs, others not, with padding or without.
const OF_URLS: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const OF_OTHERS: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A signature, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature<'a> {
    /// The dialect of the provider that made it.
    pub by: Dialect,
    /// As the provider wrote it.
    pub value: Text<'a>,
}

impl<'a> Signature<'a> {
    /// Reads a field of a dialect.
    #[must_use]
    pub fn unpack(field: Text<'a>, dialect: Dialect) -> Self {
        let field = if dialect == Dialect::Gemini { marked_of_bytes(field) } else { field };
        let marked = field.strip_prefix(MARK).and_then(|rest| rest.split_once('.'));
        match marked
            .and_then(|(name, _)| Dialect::from_name(name).map(|by| (by, MARK.len() + name.len() + 1)))
        {
            Some((by, start)) => {
                let value = match field {
                    Cow::Borrowed(field) => Cow::Borrowed(&field[start..]),
                    Cow::Owned(mut field) => Cow::Owned(field.split_off(start)),
                };
                Self { by, value }
            }
            None => Self { by: dialect, value: field },
        }
    }

    /// What stands in the field of a dialect that a client speaks.
    #[must_use]
    pub fn pack(&self, dialect: Dialect) -> Cow<'_, str> {
        if self.by == dialect {
            return Cow::Borrowed(&self.value);
        }
        let marked = format!("{MARK}{}.{}", self.by.name(), self.value);
        Cow::Owned(if dialect == Dialect::Gemini { STANDARD.encode(marked) } else { marked })
    }

    /// What a provider is sent: its own signatures, and none that another made.
    #[must_use]
    pub fn for_provider(&self, dialect: Dialect) -> Option<&str> {
        (self.by == dialect).then_some(&*self.value)
    }
}

/// The marked text that a field of bytes stands for; any other field as it is.
fn marked_of_bytes(field: Text<'_>) -> Text<'_> {
    if !field.starts_with(MARK_IN_BASE64) {
        return field;
    }
    let decoded = OF_OTHERS.decode(&*field).or_else(|_| OF_URLS.decode(&*field));
    match decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(text) if text.starts_with(MARK) => Cow::Owned(text),
        _ => field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_come_back_through_every_dialect() {
        let all =
            [Dialect::OpenaiChat, Dialect::OpenaiResponses, Dialect::AnthropicMessages, Dialect::Gemini];
        for by in all {
            for through in all {
                for value in ["EqMB+/ab==", "gAAAA_-x", "", "ü", "~~~>>>???"] {
                    let signature = Signature { by, value: value.into() };
                    let packed = signature.pack(through).into_owned();
                    let unpacked = Signature::unpack(packed.clone().into(), through);
                    assert_eq!(unpacked, signature, "{by} through {through}: {packed}");
                    if through == Dialect::Gemini && by != through {
                        // As an SDK does: decoded, and written in the alphabet of URLs.
                        let bytes = STANDARD.decode(&packed).unwrap();
                        for again in [OF_URLS.encode(&bytes), OF_URLS.encode(&bytes).replace('=', "")] {
                            assert_eq!(Signature::unpack(again.into(), through), signature, "{by}: {value}");
                        }
                    }
                }
            }
        }
        // What was packed before fields of bytes were packed as such.
        let plain = Signature::unpack("gw1.openai_responses.x".into(), Dialect::Gemini);
        assert_eq!((plain.by, &*plain.value), (Dialect::OpenaiResponses, "x"));
        // A provider's own that begins alike stays its own.
        let own = Signature::unpack("Z3cxL!".into(), Dialect::Gemini);
        assert_eq!((own.by, &*own.value), (Dialect::Gemini, "Z3cxL!"));
    }
}
