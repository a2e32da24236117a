//! Anthropic's Messages API: `/v1/messages`, whole and streamed, as clients and as providers speak it.
//!
//! # Thinking
//! What a client asked for in another dialect's words is said in those of the model that it goes to
//! ([`crate::target::Thinking`]). Effort and budget become each other by one table, which is Google's for the same
//! purpose, with two rows more:
//!
//! | effort | budget | budget up to | effort |
//! |---|---|---|---|
//! | `none` | off | 2048 | `low` |
//! | `minimal`, `low` | 1024 | 8192 | `medium` |
//! | `medium` | 8192 | 32768 | `high` |
//! | `high` | 24576 | more | `max` |
//! | `xhigh` | 32768 | | |
//! | `max` | the model's most | | |
//!
//! A budget that was made of an effort leaves half of `max_tokens` for the answer; one that the client named only has to
//! be smaller than `max_tokens`. None is below 1024: where `max_tokens` has no room for that, the model does not think,
//! and that is a loss. Neither does it where thinking would be refused: beside a tool that must be called, and with a
//! budget in the middle of a turn whose calls have no signed thoughts before them. Thoughts are never made up.
//!
//! # Structured answers
//! A schema goes into `output_config.format`, which every model has that Anthropic still serves. A tool that the model is
//! forced to call would do for older ones, but excludes thinking and the client's own tools, so a model known to have no
//! schemas gets none, and that is a loss. So is a mode of "any JSON": Anthropic has none.
//!
//! # Tools that take text
//! OpenAI's custom tools become tools with one text as input, under the name that they have. Who writes the answer for
//! the client knows from the request which calls are of such tools ([`crate::custom`]).
//!
//! # Signatures for others
//! A client of this dialect keeps Gemini's signature of a call in a block of `redacted_thinking` behind the call: the
//! dialect has no field for it, and clients return such blocks as they are.

mod block;
mod failure;
mod layout;
mod read_content;
mod read_request;
mod reply;
mod schema;
mod stream_in;
mod stream_out;
#[cfg(test)]
mod tests;
mod thinking;
mod tools;
mod usage;
mod write_request;

pub use failure::{decode_failure, encode_failure};
pub use read_request::decode_request;
pub use reply::{decode_reply, encode_reply};
pub use stream_in::StreamDecoder;
pub use stream_out::StreamEncoder;
pub use usage::decode_usage;
pub use write_request::encode_request;

pub(crate) use read_request::decode_counting;

use crate::dialect::Dialect;

const DIALECT: Dialect = Dialect::AnthropicMessages;

/// How long names of tools may be.
const MAX_NAME: usize = 128;

/// Which identities of calls there may be.
const IDS: crate::tool_ids::Shape = crate::tool_ids::Shape::Words(64);

/// On which side of the gateway this dialect is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// A client speaks it: signatures of all providers travel in it.
    Client,
    /// A provider speaks it: all signatures are its own.
    Provider,
}
