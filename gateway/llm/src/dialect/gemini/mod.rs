//! Gemini's `generateContent` and `streamGenerateContent`, as clients and as providers speak them.
//!
//! # Identities of calls
//! This dialect's models rarely name their calls, and results match by name and order. A reader makes an identity of the
//! place of a call (of the reply's identity, or of the turn in a conversation), so that others have one; a writer says
//! identities, which Google takes, and puts results in the order of the calls.
//!
//! # Signatures
//! `thoughtSignature` comes back with the part that it came with. A call in a history that another model made has none;
//! Gemini 3 refuses such a call, and gets the value that Google documents for exactly that.
//!
//! # Thinking
//! Gemini 3 is told a level, 2.5 a budget ([`crate::target::Thinking`]). Effort and budget become each other by the table
//! of Google's own compatible address: low 1,024, medium 8,192, high 24,576 tokens.

mod failure;
mod parts;
mod read_request;
mod reply;
mod schema;
mod stream_in;
mod stream_out;
#[cfg(test)]
mod tests;
mod usage;
mod write_content;
mod write_request;

pub use failure::{decode_failure, encode_failure, retry_after_s};
pub use read_request::decode_request;
pub use reply::{decode_reply, encode_reply};
pub use stream_in::StreamDecoder;
pub use stream_out::StreamEncoder;
pub use usage::decode_usage;
pub use write_request::encode_request;
