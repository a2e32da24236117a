//! What the fuzz targets reach of the parsers of requests, and nothing but that. It exists only where cargo-fuzz or
//! `cargo xtask fuzz` compiles this crate.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{ACCEPT, HeaderValue};
use ipnet::IpNet;

use crate::model::{self, Pointer, Test};

use super::forwarded::{self, Peer};
use super::framing::{Framing, Limits, Step};
use super::json::Wanted;
use super::{hop, media_type, path};

/// The form of a path that routes are matched against, and whether the upstream gets that one. `None`: refused.
#[must_use]
pub fn normalise(text: &str) -> Option<(String, bool)> {
    path::normalise(text).ok().map(|normal| (normal.path.into_owned(), normal.rewritten))
}

/// What the doorman passes of bytes that arrive in pieces of these lengths, over and over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Whole messages.
    pub messages: Vec<Vec<u8>>,
    /// Whether something was refused behind them.
    pub is_refused: bool,
}

/// Splits a connection's bytes into messages. No piece may be of length 0.
#[must_use]
pub fn messages(bytes: &[u8], pieces: &[usize], max_bytes: usize, max_fields: usize) -> Passed {
    let mut framing = Framing::new(Limits { bytes: max_bytes, fields: max_fields });
    let (mut passed, mut message) = (Passed::default(), Vec::new());
    let (mut start, mut end) = (0, 0);
    let mut pieces = pieces.iter().cycle();
    loop {
        let was_head = framing.in_head();
        match framing.step(&bytes[start..end]) {
            Step::More if end == bytes.len() => return passed,
            Step::More => end = (end + pieces.next().unwrap_or(&1)).min(bytes.len()),
            Step::Skip(count) => start += count,
            Step::Refuse(_) => {
                passed.is_refused = true;
                return passed;
            }
            Step::Pass(count) => {
                let from = message.len();
                message.extend_from_slice(&bytes[start..start + count]);
                if was_head {
                    framing.settle_version(&mut message[from..]);
                }
                start += count;
                if framing.at_start() {
                    passed.messages.push(std::mem::take(&mut message));
                }
            }
        }
    }
}

/// Makes of a request's fields what the upstream gets, and says who the client is.
pub fn prepare(headers: &mut HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let peer = Peer::new((peer, 1).into(), false);
    let client = peer.client(headers, trusted);
    hop::remove_from_request(headers);
    forwarded::write(headers, &peer, trusted);
    client
}

/// Whether there is something at each of these places of a JSON text. `None`: it is refused.
#[must_use]
pub fn fields(text: &str, pointers: &[Pointer]) -> Option<Vec<bool>> {
    let wanted = Wanted::new(pointers);
    let fields = wanted.read(text).ok()?;
    Some(pointers.iter().map(|pointer| wanted.holds(&fields, pointer, &Test::Present(true))).collect())
}

/// How much a client with this Accept wants a media type, in thousandths.
#[must_use]
pub fn accepted(accept: HeaderValue, wanted: &model::MediaType) -> u16 {
    media_type::accepted(&HeaderMap::from_iter([(ACCEPT, accept)]), wanted)
}
