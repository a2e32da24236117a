//! What the keys of LLM providers and models are written in.

use std::fmt;

use gateway_kernel::feed::shown;
use http::uri::PathAndQuery;
use serde_json::{Value as Json, json};

use crate::config::reader::Wrong;
use crate::config::shape::Notation;
use crate::model::{Endpoint, NamePattern};

use super::proxy::Server;

/// A server and the path that stands in front of its API's own.
pub(crate) struct BaseUrl;

impl Notation for BaseUrl {
    type Out = (Endpoint, String);

    fn parse(&self, text: &str) -> Result<Self::Out, Wrong> {
        let authority = text.find("://").map_or(0, |scheme| scheme + 3);
        let slash = text[authority..].find(['/', '?', '#']).map_or(text.len(), |slash| authority + slash);
        let (server, path) = text.split_at(slash);
        let is_url = server.starts_with("http://") || server.starts_with("https://");
        if !is_url {
            let message = format!("{} does not begin with http:// or https://", shown(text));
            let is_host = Server.parse(&format!("https://{server}")).is_ok();
            return Err(if is_host {
                Wrong::suggest(message, format!("https://{text}"))
            } else {
                message.into()
            });
        }
        let endpoint = Server.parse(server)?;
        let path = path.trim_end_matches('/');
        if path.contains(['?', '#']) {
            return Err("a base URL has no query; see `api_version` and `headers`".into());
        }
        let is_path =
            path.is_empty() || path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == path);
        if !is_path || path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(format!("{} is not the path of a URL", shown(path)).into());
        }
        Ok((endpoint, path.to_owned()))
    }

    fn noun(&self) -> String {
        "a URL such as https://api.openai.com/v1".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^https?://[^?#@\\s]+$" })
    }
}

/// Bytes of a model's name.
const MAX_MODEL_BYTES: usize = 256;

/// The name of a model: printable, without blanks.
pub(crate) struct ModelName;

impl Notation for ModelName {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=MAX_MODEL_BYTES).contains(&text.len()) || !is_printable {
            return Err(format!("{} is not {}", shown(text), Notation::noun(self)).into());
        }
        if text.contains('*') {
            return Err(format!("{} stands for more than one model; name one", shown(text)).into());
        }
        Ok(text.to_owned())
    }

    fn noun(&self) -> String {
        "the name of a model, such as gpt-4.1-mini".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[!-)+-~]+$", "maxLength": MAX_MODEL_BYTES })
    }
}

/// The name of a model, or the beginning of such names and a star.
pub(crate) struct ModelPattern;

impl Notation for ModelPattern {
    type Out = NamePattern;

    fn parse(&self, text: &str) -> Result<NamePattern, Wrong> {
        let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=MAX_MODEL_BYTES).contains(&text.len()) || !is_printable {
            return Err(format!("{} is not {}", shown(text), Notation::noun(self)).into());
        }
        NamePattern::new(text).ok_or_else(|| {
            let message = "a `*` stands only at the end of a model's name, as in gpt-*";
            let begin = text.split('*').next().unwrap_or_default();
            if begin.is_empty() {
                message.into()
            } else {
                Wrong::suggest(message, format!("{}*", shown(begin)))
            }
        })
    }

    fn noun(&self) -> String {
        "the name of a model, or its beginning and a star, such as gpt-*".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[!-~]+$", "maxLength": MAX_MODEL_BYTES })
    }
}

/// A text that no message repeats.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Bytes of a key. Tokens of clouds are the longest, with some 2 KiB.
const MAX_KEY_BYTES: usize = 8 * 1024;

/// A provider's key.
pub(crate) struct ApiKey;

impl Notation for ApiKey {
    type Out = Secret;

    fn parse(&self, text: &str) -> Result<Secret, Wrong> {
        if text.is_empty() {
            return Err("the key is empty; leave `api_key` out where none is needed".into());
        }
        if text.len() > MAX_KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            // Whatever it is, it may be a key.
            return Err(format!("this is not {}", Notation::noun(self)).into());
        }
        Ok(Secret(text.to_owned()))
    }

    fn noun(&self) -> String {
        format!("a key: up to {MAX_KEY_BYTES} printable characters without blanks, or `pass`")
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}
