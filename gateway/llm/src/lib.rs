//! Dialects of LLM APIs, and translation between them: bytes in, bytes out.
//!
//! A client speaks one dialect, a provider another. [`dialect`] has a module for each, which reads and writes its
//! requests, replies, streamed events and errors against one [`neutral`] form, so that the work grows with the number
//! of dialects and not with its square. What the target cannot be told becomes a [`loss::Loss`]; nothing is dropped in
//! silence. Where both ends speak the same dialect nothing is translated: [`json::Members`] changes the few fields that must
//! change and leaves every other byte alone, since signatures and prompt caches depend on them; [`meter`] reads what it cost while it passes.
//!
//! Nothing here does I/O, knows the time or draws random numbers: callers say what time it is.
//!
//! # Reading and writing
//! A request is decoded to a [`neutral::Request`], which borrows from the body, and encoded for a
//! [`target::Target`]. Streams are machines of steps: a decoder takes one frame of the provider's stream and says
//! [`neutral::Event`]s, an encoder takes an event and writes the bytes of the client's stream. A reply that was not
//! streamed and the fold of one that was are the same ([`fold`]).

#![forbid(unsafe_code)]

pub mod counting;
pub mod custom;
pub mod dialect;
pub mod embeddings;
pub mod endpoint;
pub mod failure;
pub mod fold;
pub mod frames;
pub mod invalid;
pub mod json;
pub mod loss;
pub mod meter;
pub mod model_list;
pub mod models;
pub mod neutral;
pub mod order;
pub mod target;
pub mod tool_ids;
