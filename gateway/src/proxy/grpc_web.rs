//! gRPC-Web (its protocol description): calls of browsers, which see no trailers, to upstreams that speak gRPC.
//!
//! The messages stay as they are. The trailers come as one more message, marked by its first bit, and in the text form
//! all of it is in base64, as pieces that are each padded for themselves or not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TE};

/// How a browser's call is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Binary,
    /// In base64.
    Text,
}

impl Form {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Binary => "application/grpc-web",
            Self::Text => "application/grpc-web-text",
        }
    }
}

const GRPC: &str = "application/grpc";

/// The form of a call; `None` if it is none.
pub(super) fn form(headers: &HeaderMap) -> Option<Form> {
    let media_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    [Form::Text, Form::Binary].into_iter().find(|form| format_of(media_type, form.media_type()).is_some())
}

/// What follows a media type's name, the format of the messages, if it has that name.
fn format_of<'a>(media_type: &'a str, name: &str) -> Option<&'a str> {
    media_type.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// The header of a call becomes that of a call of gRPC.
pub(super) fn write_request(headers: &mut HeaderMap, form: Form) {
    rename(headers, form.media_type(), GRPC);
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// The header of a response becomes one for a browser.
pub(super) fn write_response(headers: &mut HeaderMap, form: Form) {
    rename(headers, GRPC, form.media_type());
}

fn rename(headers: &mut HeaderMap, from: &str, to: &str) {
    let renamed = |value: &HeaderValue| {
        let format = format_of(value.to_str().ok()?, from)?;
        HeaderValue::try_from(format!("{to}{format}")).ok()
    };
    if let Some(value) = headers.get(CONTENT_TYPE).and_then(renamed) {
        headers.insert(CONTENT_TYPE, value);
        // It is of the other form, or lacks the trailers.
        headers.remove(CONTENT_LENGTH);
    }
}

/// A piece of a response's body.
pub(super) fn encode(data: Bytes, form: Form) -> Bytes {
    match form {
        Form::Binary => data,
        Form::Text => STANDARD.encode(data).into(),
    }
}

/// The trailers as a message: its first byte says what it is, the next four how long it is.
pub(super) fn encode_trailers(trailers: &HeaderMap, form: Form) -> Bytes {
    const TRAILERS: u8 = 0x80;
    let mut message = BytesMut::from(&[TRAILERS, 0, 0, 0, 0][..]);
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            message.put_slice(part);
        }
    }
    // Trailers are bounded like a header.
    let length = u32::try_from(message.len() - 5).unwrap_or(u32::MAX);
    message[1..5].copy_from_slice(&length.to_be_bytes());
    encode(message.freeze(), form)
}

/// What stands in a body in base64 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotBase64;

/// Reads a request's body that comes in base64, piece by piece.
#[derive(Debug, Default)]
pub(super) struct TextReader {
    /// The begin of a group of four digits; at most three of them.
    begun: Vec<u8>,
}

impl TextReader {
    pub(super) fn read(&mut self, data: &[u8]) -> Result<Bytes, NotBase64> {
        let mut digits = std::mem::take(&mut self.begun);
        digits.extend_from_slice(data);
        self.begun = digits.split_off(digits.len() / 4 * 4);
        let mut read = Vec::with_capacity(digits.len() / 4 * 3);
        let mut rest = digits.as_slice();
        while !rest.is_empty() {
            // A piece ends where it is padded.
            let end = memchr::memchr(b'=', rest).map_or(rest.len(), |padding| (padding / 4 + 1) * 4);
            STANDARD.decode_vec(&rest[..end], &mut read).map_err(|_| NotBase64)?;
            rest = &rest[end..];
        }
        Ok(read.into())
    }

    /// The end of the body: nothing may have begun.
    pub(super) fn end(&self) -> Result<(), NotBase64> {
        if self.begun.is_empty() { Ok(()) } else { Err(NotBase64) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn media_types_are_renamed() {
        for (written, form_of_it, upstream) in [
            ("application/grpc-web", Some(Form::Binary), "application/grpc"),
            ("application/grpc-web+proto", Some(Form::Binary), "application/grpc+proto"),
            ("application/grpc-web-text", Some(Form::Text), "application/grpc"),
            ("application/grpc-web-text+proto; a=b", Some(Form::Text), "application/grpc+proto; a=b"),
            ("application/grpc", None, ""),
            ("application/grpc-webs", None, ""),
            ("text/plain", None, ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(written));
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
            assert_eq!(form(&headers), form_of_it, "{written}");
            let Some(form) = form_of_it else { continue };
            write_request(&mut headers, form);
            assert_eq!(
                (&headers[CONTENT_TYPE], &headers[TE]),
                (&upstream.parse().unwrap(), &"trailers".parse().unwrap())
            );
            assert!(!headers.contains_key(CONTENT_LENGTH));
            write_response(&mut headers, form);
            assert_eq!(headers[CONTENT_TYPE], written);
        }
    }

    #[test]
    fn trailers_are_a_message() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let message = encode_trailers(&trailers, Form::Binary);
        assert_eq!(message, &b"\x80\0\0\0\x10grpc-status: 0\r\n"[..]);
        assert_eq!(encode_trailers(&trailers, Form::Text), STANDARD.encode(message));
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for (text, expected) in [
            ("", true),
            ("AAAA", true),
            ("AA==AAAA", true),
            ("AAA", false),
            ("AA=A", false),
            ("A===", false),
            ("AA\r\n", false),
            ("=AAA", false),
            ("AA==A", false),
        ] {
            let mut reader = TextReader::default();
            let read = reader.read(text.as_bytes()).and_then(|_| reader.end());
            assert_eq!(read.is_ok(), expected, "{text}");
        }
    }

    proptest! {
        /// However it is cut when it is written, and however when it is read.
        #[test]
        fn text_is_read_as_it_was_written(pieces: Vec<Vec<u8>>, cut in 1usize..50) {
            let written: String = pieces.iter().map(|piece| STANDARD.encode(piece)).collect();
            let mut reader = TextReader::default();
            let read: Vec<u8> =
                written.as_bytes().chunks(cut).flat_map(|chunk| reader.read(chunk).unwrap()).collect();
            prop_assert_eq!(reader.end(), Ok(()));
            prop_assert_eq!(read, pieces.concat());
        }
    }
}
