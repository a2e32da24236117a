//! Embeddings between OpenAI's shape and Gemini's: the request and the answer are translated whole.

use gateway_llm::dialect::Dialect;
use gateway_llm::embeddings::{EmbeddingRequest, Shape};
use gateway_llm::invalid::Invalid;
use gateway_llm::json::Reader;
use gateway_llm::loss::Losses;
use gateway_llm::neutral::Usage;

use super::call::{Api, Call};

/// What of a request is needed for its answer.
pub(super) struct Embedding {
    /// The client's.
    from: Shape,
    /// The provider's.
    to: Shape,
    asked: EmbeddingRequest<'static>,
}

/// What a call for embeddings is shaped like.
pub(super) fn shape_of(call: &Call<'_>) -> Option<Shape> {
    let Api::Other { tail, .. } = &call.api else { return None };
    match *tail {
        "/embeddings" => Some(Shape::Openai),
        "embedContent" => Some(Shape::GeminiOne),
        "batchEmbedContents" => Some(Shape::GeminiBatch),
        _ => None,
    }
}

impl Embedding {
    /// Translates a request. `None`: the provider's dialect has no embeddings.
    ///
    /// # Errors
    /// When the body is none, or has in it what the provider cannot be asked.
    pub(super) fn request(
        (from, model): (Shape, &str),
        body: &[u8],
        (to, target): (Dialect, &str),
        losses: &mut Losses,
    ) -> Result<Option<(Self, Vec<u8>)>, Invalid> {
        let mut reader = Reader::default();
        let request = from.decode_request(body, &mut reader)?;
        losses.append(reader.losses);
        let to = match to {
            Dialect::OpenaiChat | Dialect::OpenaiResponses => Shape::Openai,
            Dialect::Gemini => request.gemini_shape(),
            Dialect::AnthropicMessages => return Ok(None),
        };
        let written = to.encode_request(&request, target, losses)?;
        let asked = EmbeddingRequest {
            model: model.to_owned().into(),
            base64: request.base64,
            ..EmbeddingRequest::default()
        };
        Ok(Some((Self { from, to, asked }, written)))
    }

    /// What stands behind the version in the provider's path, or behind the colon.
    pub(super) const fn tail(&self) -> &'static str {
        match self.to {
            Shape::Openai => "/embeddings",
            Shape::GeminiOne => "embedContent",
            Shape::GeminiBatch => "batchEmbedContents",
        }
    }

    /// Translates the answer.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn reply(
        &self,
        body: &[u8],
        losses: &mut Losses,
    ) -> Result<(Vec<u8>, Option<Usage>), Invalid> {
        let mut reader = Reader::default();
        let reply = self.to.decode_reply(body, &mut reader)?;
        losses.append(reader.losses);
        let usage = reply.tokens.map(|tokens| Usage { input: Some(tokens), ..Usage::default() });
        Ok((self.from.encode_reply(&reply, &self.asked, losses)?, usage))
    }
}
