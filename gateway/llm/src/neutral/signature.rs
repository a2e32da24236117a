//! What a provider signed or encrypted, on its way through clients that speak another dialect.
//!
//! A signature must come back to the provider byte for byte, and to no other. A client's dialect that has a field for
//! its own provider's signatures carries those of others in it, with a mark that says whose they are.

use std::borrow::Cow;

use super::Text;
use crate::dialect::Dialect;

/// Before a signature that travels in a foreign field.
const MARK: &str = "gw1.";

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
            Cow::Borrowed(&self.value)
        } else {
            Cow::Owned(format!("{MARK}{}.{}", self.by.name(), self.value))
        }
    }

    /// What a provider is sent: its own signatures, and none that another made.
    #[must_use]
    pub fn for_provider(&self, dialect: Dialect) -> Option<&str> {
        (self.by == dialect).then_some(&*self.value)
    }
}
