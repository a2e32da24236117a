//! OpenAI's Chat Completions, and the servers that speak it in their own ways.
//!
//! What a client may say is read as OpenAI documents it, with what clients of other servers say beside it: reasoning in
//! `reasoning`, `reasoning_content` and `reasoning_details`, signatures in `extra_content`, cache marks on parts. How
//! servers differ is a table ([`crate::target::Quirks`]) for what is sent, and nothing at all for what they answer:
//! any of their replies is read.

mod failure;
mod read_message;
mod read_request;
mod read_tools;
mod reasoning;
mod reply_in;
mod reply_out;
mod stream_choice;
mod stream_in;
mod stream_out;
mod stream_parts;
#[cfg(test)]
mod tests;
mod usage;
mod words;
mod write_answer;
mod write_message;
mod write_request;
mod write_tools;

pub use failure::{decode_failure, encode_failure};
pub use read_request::decode_request;
pub use reply_in::decode_reply;
pub use reply_out::encode_reply;
pub use stream_in::StreamDecoder;
pub use stream_out::StreamEncoder;
pub use usage::decode_usage;
pub use write_request::encode_request;
