//! The dialects: a module each.

pub mod anthropic_messages;
pub mod gemini;
pub mod openai_chat;
pub mod openai_responses;

use std::fmt;

use crate::failure::Failure;
use crate::frames::{Frame, Framing};
use crate::invalid::Invalid;
use crate::json::{Node, Reader};
use crate::loss::Losses;
use crate::neutral::{End, Event, Reply, Request, Usage};
use crate::target::Target;

/// A dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// OpenAI's Chat Completions (`/v1/chat/completions`).
    OpenaiChat,
    /// OpenAI's Responses (`/v1/responses`).
    OpenaiResponses,
    /// Anthropic's Messages (`/v1/messages`).
    AnthropicMessages,
    /// Gemini's `generateContent` and `streamGenerateContent`.
    Gemini,
}

/// What a request's path says, where a dialect puts it there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Call<'a> {
    /// The model (Gemini).
    pub model: Option<&'a str>,
    /// Whether the answer is streamed (Gemini).
    pub stream: bool,
}

/// What is left of a request when its answer is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The model, as the client called it.
    pub model: String,
    /// Whether the client of a stream is told the usage.
    pub stream_usage: bool,
    /// How the stream is cut.
    pub framing: Framing,
    /// The time, in seconds since 1970.
    pub now: u64,
    /// Fields of the request that the dialect repeats in its answer, with their JSON (Responses).
    pub echo: Vec<(String, String)>,
}

impl Asked {
    /// What a request leaves.
    #[must_use]
    pub fn new(request: &Request<'_>, framing: Framing, now: u64) -> Self {
        let echo = request.echo.iter().map(|(name, raw)| (name.to_string(), raw.to_string()));
        Self {
            model: request.model.to_string(),
            stream_usage: request.stream_usage.unwrap_or(false),
            framing,
            now,
            echo: echo.collect(),
        }
    }
}

macro_rules! each_dialect {
    ($self:expr, $module:ident => $call:expr) => {
        match $self {
            Dialect::OpenaiChat => {
                use openai_chat as $module;
                $call
            }
            Dialect::OpenaiResponses => {
                use openai_responses as $module;
                $call
            }
            Dialect::AnthropicMessages => {
                use anthropic_messages as $module;
                $call
            }
            Dialect::Gemini => {
                use gemini as $module;
                $call
            }
        }
    };
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::OpenaiChat, Self::OpenaiResponses, Self::AnthropicMessages, Self::Gemini];

    /// As configurations and metrics call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai_chat",
            Self::OpenaiResponses => "openai_responses",
            Self::AnthropicMessages => "anthropic_messages",
            Self::Gemini => "gemini",
        }
    }

    /// The dialect of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    /// Reads a client's request. What it says that the neutral form cannot hold is noted in the reader.
    ///
    /// # Errors
    /// When the body is not one of this dialect's, with the place.
    pub fn decode_request<'a>(
        self,
        body: &'a [u8],
        call: &Call<'a>,
        reader: &mut Reader,
    ) -> Result<Request<'a>, Invalid> {
        each_dialect!(self, dialect => dialect::decode_request(body, call, reader))
    }

    /// Writes a request for a provider.
    ///
    /// # Errors
    /// When the target would refuse it, and no other way of saying it is left; when it goes on from something that only a
    /// provider of Responses has.
    pub fn encode_request(
        self,
        request: &Request<'_>,
        target: &Target<'_>,
        losses: &mut Losses,
    ) -> Result<Vec<u8>, Invalid> {
        if self != Self::OpenaiResponses {
            openai_responses::refuse_state(request)?;
        }
        each_dialect!(self, dialect => dialect::encode_request(request, target, losses))
    }

    /// Reads a provider's reply that was not streamed.
    ///
    /// # Errors
    /// When it is none of this dialect's.
    pub fn decode_reply<'a>(self, body: &'a [u8], reader: &mut Reader) -> Result<Reply<'a>, Invalid> {
        each_dialect!(self, dialect => dialect::decode_reply(body, reader))
    }

    /// Writes a reply for a client.
    #[must_use]
    pub fn encode_reply(self, reply: &Reply<'_>, asked: &Asked, losses: &mut Losses) -> Vec<u8> {
        each_dialect!(self, dialect => dialect::encode_reply(reply, asked, losses))
    }

    /// Reads the object in which a reply says what it cost: `usage`, Gemini's `usageMetadata`. What is not as it should be
    /// counts as not said: metering never stands in the way of an answer.
    #[must_use]
    pub fn decode_usage(self, node: &Node<'_>) -> Usage {
        each_dialect!(self, dialect => dialect::decode_usage(node))
    }

    /// Reads a provider's error. What is no error of this dialect (a page of a load balancer's) is told by its status,
    /// and not passed on.
    #[must_use]
    pub fn decode_failure(self, status: u16, body: &[u8]) -> Failure {
        each_dialect!(self, dialect => dialect::decode_failure(status, body))
    }

    /// Writes an error for a client: the body to the status that the failure has.
    #[must_use]
    pub fn encode_failure(self, failure: &Failure) -> Vec<u8> {
        each_dialect!(self, dialect => dialect::encode_failure(failure))
    }

    /// Reads a provider's stream.
    #[must_use]
    pub fn stream_decoder(self) -> StreamDecoder {
        match self {
            Self::OpenaiChat => StreamDecoder::OpenaiChat(Box::default()),
            Self::OpenaiResponses => StreamDecoder::OpenaiResponses(Box::default()),
            Self::AnthropicMessages => StreamDecoder::AnthropicMessages(Box::default()),
            Self::Gemini => StreamDecoder::Gemini(Box::default()),
        }
    }

    /// Writes a client's stream.
    #[must_use]
    pub fn stream_encoder(self, asked: Asked) -> StreamEncoder {
        match self {
            Self::OpenaiChat => StreamEncoder::OpenaiChat(Box::new(openai_chat::StreamEncoder::new(asked))),
            Self::OpenaiResponses => {
                StreamEncoder::OpenaiResponses(Box::new(openai_responses::StreamEncoder::new(asked)))
            }
            Self::AnthropicMessages => {
                StreamEncoder::AnthropicMessages(Box::new(anthropic_messages::StreamEncoder::new(asked)))
            }
            Self::Gemini => StreamEncoder::Gemini(Box::new(gemini::StreamEncoder::new(asked))),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads a provider's stream: a machine of steps. The order of what it says is that of [`crate::neutral::Event`].
#[derive(Debug)]
#[allow(missing_docs, reason = "they are the dialects")]
pub enum StreamDecoder {
    OpenaiChat(Box<openai_chat::StreamDecoder>),
    OpenaiResponses(Box<openai_responses::StreamDecoder>),
    AnthropicMessages(Box<anthropic_messages::StreamDecoder>),
    Gemini(Box<gemini::StreamDecoder>),
}

impl StreamDecoder {
    /// Reads a frame, and says what it means.
    pub fn step(&mut self, frame: &Frame<'_>, say: &mut dyn FnMut(Event<'_>)) {
        match self {
            Self::OpenaiChat(decoder) => decoder.step(frame, say),
            Self::OpenaiResponses(decoder) => decoder.step(frame, say),
            Self::AnthropicMessages(decoder) => decoder.step(frame, say),
            Self::Gemini(decoder) => decoder.step(frame, say),
        }
    }

    /// The stream has ended. Says what is left to say: a stream that ended too early has [`Event::Failed`].
    pub fn finish(&mut self, end: End, say: &mut dyn FnMut(Event<'_>)) {
        match self {
            Self::OpenaiChat(decoder) => decoder.finish(end, say),
            Self::OpenaiResponses(decoder) => decoder.finish(end, say),
            Self::AnthropicMessages(decoder) => decoder.finish(end, say),
            Self::Gemini(decoder) => decoder.finish(end, say),
        }
    }

    /// What was in the stream and has no place in events.
    pub fn losses(&mut self) -> &mut Losses {
        match self {
            Self::OpenaiChat(decoder) => &mut decoder.reader.losses,
            Self::OpenaiResponses(decoder) => &mut decoder.reader.losses,
            Self::AnthropicMessages(decoder) => &mut decoder.reader.losses,
            Self::Gemini(decoder) => &mut decoder.reader.losses,
        }
    }
}

/// Writes a client's stream: a machine of steps.
#[derive(Debug)]
#[allow(missing_docs, reason = "they are the dialects")]
pub enum StreamEncoder {
    OpenaiChat(Box<openai_chat::StreamEncoder>),
    OpenaiResponses(Box<openai_responses::StreamEncoder>),
    AnthropicMessages(Box<anthropic_messages::StreamEncoder>),
    Gemini(Box<gemini::StreamEncoder>),
}

impl StreamEncoder {
    /// Writes what an event means in this dialect, which may be nothing yet.
    pub fn step(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match self {
            Self::OpenaiChat(encoder) => encoder.step(event, out),
            Self::OpenaiResponses(encoder) => encoder.step(event, out),
            Self::AnthropicMessages(encoder) => encoder.step(event, out),
            Self::Gemini(encoder) => encoder.step(event, out),
        }
    }

    /// What the dialect could not say.
    pub fn losses(&mut self) -> &mut Losses {
        match self {
            Self::OpenaiChat(encoder) => &mut encoder.losses,
            Self::OpenaiResponses(encoder) => &mut encoder.losses,
            Self::AnthropicMessages(encoder) => &mut encoder.losses,
            Self::Gemini(encoder) => &mut encoder.losses,
        }
    }
}
