//! Finds the model in a form with files (`multipart/form-data`, RFC 7578), as transcriptions and edits of images are sent.
//!
//! A library for forms hands out their parts; what is wanted here is to change a few bytes of one and to keep all others.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use memchr::memmem;

use super::super::media_type;

/// Where the model stands in a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    model: Option<Range<usize>>,
}

/// Parts of a form that are looked at.
const MAX_PARTS: usize = 100;

/// Bytes of a boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;

impl Form {
    /// `None`: it is no form.
    pub(super) fn of(content_type: &HeaderValue, body: &[u8]) -> Option<Self> {
        let text = content_type.to_str().ok()?;
        let is_form = text
            .split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("multipart/form-data"));
        let boundary =
            media_type::parse(content_type.as_bytes())?.parameter("boundary").filter(|_| is_form)?;
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
            return None;
        }
        Some(Self { model: find(body, boundary.as_bytes(), "model") })
    }

    /// The model.
    pub(super) fn model<'b>(&self, body: &'b [u8]) -> Option<&'b str> {
        std::str::from_utf8(&body[self.model.clone()?]).ok().map(str::trim).filter(|model| !model.is_empty())
    }

    /// The form with another model in it.
    pub(super) fn with_model(&self, body: &[u8], model: &str) -> Bytes {
        let Some(Range { start, end }) = self.model.clone() else { return Bytes::copy_from_slice(body) };
        let mut out = Vec::with_capacity(body.len() + model.len());
        out.extend_from_slice(&body[..start]);
        // A name has no line ends, so it cannot begin a part.
        out.extend(model.bytes().filter(|byte| !byte.is_ascii_control()));
        out.extend_from_slice(&body[end..]);
        out.into()
    }
}

/// The value of a field.
fn find(body: &[u8], boundary: &[u8], name: &str) -> Option<Range<usize>> {
    let mark = [b"--", boundary].concat();
    let end_mark = [b"\r\n--", boundary].concat();
    let finder = memmem::Finder::new(&end_mark);
    let mut at = if body.starts_with(&mark) { mark.len() } else { finder.find(body)? + end_mark.len() };
    for _ in 0..MAX_PARTS {
        let part = body.get(at..)?.strip_prefix(b"\r\n")?;
        let start = at + 2;
        let head_end = memmem::find(part, b"\r\n\r\n")?;
        let value = start + head_end + 4;
        let end = value + finder.find(body.get(value..)?)?;
        if names(&part[..head_end], name) {
            return Some(value..end);
        }
        at = end + end_mark.len();
    }
    None
}

/// Whether the header of a part names this field, and no file.
fn names(head: &[u8], name: &str) -> bool {
    let Ok(head) = std::str::from_utf8(head) else { return false };
    head.split("\r\n").any(|line| {
        let Some((field, value)) = line.split_once(':') else { return false };
        let mut parameters = value.split(';').map(str::trim);
        let is_quoted = |parameter: &str| {
            parameter.strip_prefix("name=").is_some_and(|value| value.trim_matches('"') == name)
        };
        field.eq_ignore_ascii_case("content-disposition")
            && parameters.next() == Some("form-data")
            && parameters.any(is_quoted)
            && !value.contains("filename=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\n\u{1}--xx-\r\nx\r\n--xx\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--xx--\r\n";

    fn form(content_type: &'static str, body: &str) -> Option<Form> {
        Form::of(&HeaderValue::from_static(content_type), body.as_bytes())
    }

    #[test]
    fn the_model_is_found_and_changed() {
        let found = form("multipart/form-data; boundary=xx", BODY).unwrap();
        assert_eq!(found.model(BODY.as_bytes()), Some("whisper-1"));
        let changed = found.with_model(BODY.as_bytes(), "a\r\n--xx");
        assert_eq!(changed, BODY.replace("whisper-1", "a--xx"));
        assert_eq!(form("Multipart/Form-Data; boundary=\"xx\"", BODY), Some(found));
    }

    #[test]
    fn what_is_no_form_has_none() {
        for (content_type, body, is_form) in [
            ("application/json", BODY, false),
            ("multipart/form-data", BODY, false),
            ("multipart/form-data; boundary=yy", BODY, true),
            ("multipart/form-data; boundary=xx", "", true),
            ("multipart/form-data; boundary=xx", "--xx\r\n\r\nmodel", true),
            ("multipart/form-data; boundary=xx", "--xx--\r\n", true),
        ] {
            let found = form(content_type, body);
            assert_eq!(found.is_some(), is_form, "{content_type} {body}");
            assert_eq!(found.and_then(|form| form.model), None, "{content_type} {body}");
        }
    }

    proptest::proptest! {
        /// Whatever stands in a body, looking for a model in it ends.
        #[test]
        fn any_body_is_looked_at(body in "(--xx|\r\n|content-disposition: form-data; name=model|a|-){0,30}") {
            if let Some(found) = form("multipart/form-data; boundary=xx", &body) {
                let _ = found.with_model(body.as_bytes(), "m");
            }
        }
    }
}
