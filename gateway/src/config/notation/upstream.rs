//! What the keys of balancing are written in.

use gateway_kernel::feed::shown;
use http::HeaderName;
use serde_json::{Value as Json, json};

use crate::config::reader::Wrong;
use crate::config::shape::Notation;

/// A header field's name.
pub(crate) struct FieldName;

impl Notation for FieldName {
    type Out = HeaderName;

    fn parse(&self, text: &str) -> Result<HeaderName, Wrong> {
        let name = HeaderName::from_bytes(text.as_bytes());
        name.map_err(|_| format!("{} is not the name of a header field", shown(text)).into())
    }

    fn noun(&self) -> String {
        "the name of a header field".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": TOKEN })
    }
}

/// A cookie's name: a token (RFC 6265, section 4.1.1).
pub(crate) struct CookieName;

/// Of RFC 9110, as a pattern; no name here is longer.
const TOKEN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$";

impl Notation for CookieName {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(is_token) {
            return Ok(text.to_owned());
        }
        Err(format!("{} is not the name of a cookie", shown(text)).into())
    }

    fn noun(&self) -> String {
        "the name of a cookie".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": TOKEN })
    }
}
