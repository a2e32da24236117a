//! Answers that a provider compressed although it was asked not to: some load balancers do.
//!
//! They are decoded as they come, so that a stream stays one. zstd is left out: whoever sends it was asked for it.

use std::io::{self, Write};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// What a piece of some 64 KiB may become. One that grows beyond it was made to fill memory.
const MAX_PIECE: usize = 16 << 20;

/// Decodes a body, piece by piece.
pub(super) struct Decoder(Kind);

enum Kind {
    Gzip(flate2::write::MultiGzDecoder<Sink>),
    /// With the header of zlib (RFC 9110, section 8.4.1.2).
    Deflate(flate2::write::ZlibDecoder<Sink>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<Sink>>),
}

/// What was decoded, as far as memory may hold it.
#[derive(Default)]
struct Sink(Vec<u8>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PIECE {
            return Err(io::Error::other("it grows too much"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A coding that is not known, or several of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown;

/// The body cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

impl Decoder {
    /// The decoder of a body with this header; `None` if it is not compressed.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Unknown> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let Some(coding) = codings.next() else { return Ok(None) };
        if codings.next().is_some() {
            return Err(Unknown);
        }
        let kind = match coding.as_bytes().to_ascii_lowercase().as_slice() {
            b"identity" | b"" => return Ok(None),
            b"gzip" | b"x-gzip" => Kind::Gzip(flate2::write::MultiGzDecoder::new(Sink::default())),
            b"deflate" => Kind::Deflate(flate2::write::ZlibDecoder::new(Sink::default())),
            b"br" => {
                Kind::Brotli(Box::new(brotli_decompressor::DecompressorWriter::new(Sink::default(), 4096)))
            }
            _ => return Err(Unknown),
        };
        Ok(Some(Self(kind)))
    }

    /// What the next piece says, which may be nothing yet.
    pub(super) fn decode(&mut self, piece: &[u8]) -> Result<Bytes, Undecodable> {
        let written = match &mut self.0 {
            Kind::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Kind::Deflate(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Kind::Brotli(decoder) => decoder.write_all(piece),
        };
        written.map_err(|_| Undecodable)?;
        Ok(self.take())
    }

    /// What is left at the end of the body. One that ends in the middle of its coding was cut.
    pub(super) fn finish(&mut self) -> Result<Bytes, Undecodable> {
        let ended = match &mut self.0 {
            Kind::Gzip(decoder) => decoder.try_finish(),
            Kind::Deflate(decoder) => decoder.try_finish(),
            Kind::Brotli(decoder) => decoder.close(),
        };
        ended.map_err(|_| Undecodable)?;
        Ok(self.take())
    }

    fn take(&mut self) -> Bytes {
        let sink = match &mut self.0 {
            Kind::Gzip(decoder) => decoder.get_mut(),
            Kind::Deflate(decoder) => decoder.get_mut(),
            Kind::Brotli(decoder) => decoder.get_mut(),
        };
        std::mem::take(&mut sink.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(coding: &'static str) -> Result<Option<Decoder>, Unknown> {
        Decoder::of(&HeaderMap::from_iter([(CONTENT_ENCODING, http::HeaderValue::from_static(coding))]))
    }

    fn compressed(coding: &str, text: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::default();
        match coding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            _ => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    #[test]
    fn bodies_are_decoded_wherever_they_are_cut() {
        let text = b"data: {\"a\":1}\n\n".repeat(100);
        for coding in ["gzip", "deflate"] {
            let bytes = compressed(coding, &text);
            for size in [1, 7, bytes.len()] {
                let mut decoder = decoder(coding).unwrap().unwrap();
                let mut read = Vec::new();
                for piece in bytes.chunks(size) {
                    read.extend_from_slice(&decoder.decode(piece).unwrap());
                }
                read.extend_from_slice(&decoder.finish().unwrap());
                assert_eq!(read, text, "{coding} by {size}");
            }
        }
    }

    #[test]
    fn brotli_is_decoded() {
        // By the reference implementation.
        let hex = "1b2c00f81d077633d742271606ff88dc5a41248c4c83c4ecf5291dba682a040837647200";
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut decoder = decoder("br").unwrap().unwrap();
        let mut read = Vec::new();
        for piece in bytes.chunks(5) {
            read.extend_from_slice(&decoder.decode(piece).unwrap());
        }
        read.extend_from_slice(&decoder.finish().unwrap());
        assert_eq!(read, b"data: {\"a\":1}\n\n".repeat(3));
    }

    #[test]
    fn what_is_cut_or_broken_is_no_end() {
        for coding in ["gzip", "deflate"] {
            let bytes = compressed(coding, b"hello");
            let mut cut = decoder(coding).unwrap().unwrap();
            cut.decode(&bytes[..bytes.len() - 3]).unwrap();
            assert_eq!(cut.finish().map(drop), Err(Undecodable), "{coding}");
            let mut broken = decoder(coding).unwrap().unwrap();
            assert_eq!(
                broken.decode(b"<html><body>no answer</body></html>").map(drop),
                Err(Undecodable),
                "{coding}"
            );
        }
    }

    #[test]
    fn a_bomb_is_no_answer() {
        let bytes = compressed("gzip", &vec![0; 4 * MAX_PIECE]);
        let mut decoder = decoder("gzip").unwrap().unwrap();
        assert_eq!(decoder.decode(&bytes).map(drop), Err(Undecodable));
    }

    #[test]
    fn codings_are_known_or_not() {
        for (coding, is_known) in
            [("identity", true), ("GZIP", true), ("br", true), ("zstd", false), ("gzip, br", false)]
        {
            assert_eq!(decoder(coding).is_ok(), is_known, "{coding}");
        }
    }
}
