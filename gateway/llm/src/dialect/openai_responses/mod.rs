//! OpenAI's Responses (`/v1/responses`).
//!
//! What a conversation is made of are items: messages, thoughts, calls of tools and what they answered, and a dozen kinds
//! that only OpenAI's own tools have. As a client's dialect over another provider:
//!
//! - Items have the identities that they would have there, made from the provider's name for the answer and their place.
//! - A client's `encrypted_content` carries whatever a provider signed, marked with whose it is. Where it belongs to a
//!   call or a text and not to thoughts (Gemini's `thoughtSignature`), an empty item of reasoning follows, which the
//!   client sends back in its place as it must with any other; see `FOR_PREVIOUS` below.
//! - Custom tools and tools of namespaces become plain functions, and an answer's calls turn back into what they were by
//!   the tools that the client declared: [`crate::dialect::Asked::echo`] has them, since the answer repeats them anyway.
//!   Names with marks were rejected, as prompts speak of tools by their names.
//! - Nothing is kept: a request that goes on from a response, a conversation, a prompt or a referenced item of OpenAI's is
//!   refused, see [`refuse_state`], and answers say `"store": false`.

mod affinity;
mod content;
mod failure;
mod open;
mod output;
mod read_items;
mod read_request;
mod reply;
mod slots;
mod stream_in;
mod stream_out;
mod tools;
mod write_items;
mod write_request;

#[cfg(test)]
mod tests;

pub use affinity::{Affinity, affinity};
pub use failure::{decode_failure, encode_failure};
pub use read_request::{decode_request, refuse_state};
pub use reply::{decode_reply, decode_usage, encode_reply};
pub use stream_in::StreamDecoder;
pub use stream_out::StreamEncoder;
pub use write_request::encode_request;

use crate::dialect::Dialect;

const DIALECT: Dialect = Dialect::OpenaiResponses;

/// Before what stands in the `encrypted_content` of an item of reasoning that is nothing but the signature of the item
/// before it.
const FOR_PREVIOUS: &str = "for-previous:";

/// Before what stands in the `encrypted_content` of thoughts that are hidden in their signature.
const REDACTED: &str = "redacted:";

/// How identities of reasoning begin that we made. A provider would look for them among what it keeps.
const OWN_REASONING: &str = "rs_gw_";
