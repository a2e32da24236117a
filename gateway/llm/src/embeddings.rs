//! Embeddings: texts become vectors, in the shapes of OpenAI (`/v1/embeddings`) and Gemini (`embedContent`,
//! `batchEmbedContents`).
//!
//! Numbers of vectors pass as they were written, but where one side has them in base64: those are floats of 32 bits in
//! little-endian order, and come out with the digits that such a float needs.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::invalid::{Invalid, Reason};
use crate::json::{Array, Fields, Node, Path, Reader, Value, object, parse};
use crate::loss::{Losses, What};
use crate::neutral::{Raw, Text};

/// Whose shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// OpenAI's.
    Openai,
    /// Gemini's `embedContent`.
    GeminiOne,
    /// Gemini's `batchEmbedContents`.
    GeminiBatch,
}

/// How many inputs a request may have. OpenAI takes 2048, Gemini 100.
pub const MAX_INPUTS: usize = 4096;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbeddingRequest<'a> {
    /// As the client wrote it; empty where Gemini's path says it.
    pub model: Text<'a>,
    /// What becomes vectors.
    pub inputs: Vec<Input<'a>>,
    /// How long the vectors are.
    pub dimensions: Option<u64>,
    /// Whether the vectors are wanted in base64.
    pub base64: bool,
    /// Who asks.
    pub user: Option<Text<'a>>,
    /// What the vectors are for (Gemini's `taskType`).
    pub task: Option<Text<'a>>,
    /// The title of the text (Gemini).
    pub title: Option<Text<'a>>,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'a> {
    /// A text.
    Text(Text<'a>),
    /// Numbers of tokens, which mean something to one provider only; an array, as it was written.
    Tokens(Raw<'a>),
}

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbeddingReply<'a> {
    /// The model that answered.
    pub model: Text<'a>,
    /// In the order of the inputs.
    pub vectors: Vec<Vector<'a>>,
    /// Tokens of all inputs.
    pub tokens: Option<u64>,
}

/// A vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vector<'a> {
    /// An array of numbers, as it was written.
    Numbers(Raw<'a>),
    /// Floats of 32 bits.
    Base64(Text<'a>),
}

impl Shape {
    /// Reads a request.
    ///
    /// # Errors
    /// When the body is none of this shape.
    pub fn decode_request<'a>(
        self,
        body: &'a [u8],
        reader: &mut Reader,
    ) -> Result<EmbeddingRequest<'a>, Invalid> {
        reader.object(parse(body)?, &Path::Root, |fields, reader| match self {
            Self::Openai => openai_request(fields),
            Self::GeminiOne => gemini_request(fields, reader),
            Self::GeminiBatch => gemini_batch(fields, reader),
        })
    }

    /// Writes a request for a model. Gemini's shape is chosen by [`EmbeddingRequest::gemini_shape`].
    ///
    /// # Errors
    /// When an input is tokens, which Gemini does not take; when there are several where one is taken.
    pub fn encode_request(
        self,
        request: &EmbeddingRequest<'_>,
        model: &str,
        losses: &mut Losses,
    ) -> Result<Vec<u8>, Invalid> {
        let EmbeddingRequest { model: _, inputs, dimensions, base64, user, task, title } = request;
        let mut out = Vec::with_capacity(256);
        if self == Self::Openai {
            let details = [(task, "task_type"), (title, "title")];
            details
                .iter()
                .filter(|(detail, _)| detail.is_some())
                .for_each(|(_, at)| losses.add(What::PartDetail, *at));
            object(&mut out, |object| {
                object.text("model", model);
                match &inputs[..] {
                    [Input::Text(text)] => object.text("input", text),
                    [Input::Tokens(raw)] => object.raw("input", raw),
                    all => {
                        object.array("input", |array| all.iter().for_each(|input| write_input(input, array)))
                    }
                }
                object.some_whole("dimensions", *dimensions);
                if *base64 {
                    object.text("encoding_format", "base64");
                }
                object.some_text("user", user.as_ref());
            });
            return Ok(out);
        }
        if user.is_some() {
            losses.add(What::Metadata, "user");
        }
        let mut texts = Vec::with_capacity(inputs.len());
        for (index, input) in inputs.iter().enumerate() {
            match input {
                Input::Text(text) => texts.push(&**text),
                Input::Tokens(_) => {
                    let message = "The target takes texts only: numbers of tokens mean nothing to it.";
                    return Err(Invalid::new(Reason::Value, format!("input[{index}]"), message));
                }
            }
        }
        let full =
            if model.contains('/') { Cow::Borrowed(model) } else { Cow::Owned(format!("models/{model}")) };
        let write = |text: &str, object: &mut crate::json::Object<'_>| {
            object.text("model", &full);
            object.object("content", |object| {
                object.array("parts", |array| array.object(|object| object.text("text", text)));
            });
            object.some_text("taskType", task.as_ref());
            object.some_text("title", title.as_ref());
            object.some_whole("outputDimensionality", *dimensions);
        };
        match (self, &texts[..]) {
            (Self::GeminiOne, [text]) => object(&mut out, |object| write(text, object)),
            (Self::GeminiOne, _) => {
                let message = "The target takes one input at a time.";
                return Err(Invalid::new(Reason::Value, "input".to_owned(), message));
            }
            _ => object(&mut out, |object| {
                object.array("requests", |array| {
                    texts.iter().for_each(|text| array.object(|object| write(text, object)));
                });
            }),
        }
        Ok(out)
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// When the body is none of this shape.
    pub fn decode_reply<'a>(
        self,
        body: &'a [u8],
        reader: &mut Reader,
    ) -> Result<EmbeddingReply<'a>, Invalid> {
        reader.object(parse(body)?, &Path::Root, |fields, reader| match self {
            Self::Openai => openai_reply(fields, reader),
            Self::GeminiOne => {
                let vector =
                    gemini_vector(fields.need("embedding")?, &Path::Root.field("embedding"), reader)?;
                let tokens = gemini_tokens(fields, reader)?;
                Ok(EmbeddingReply { model: Text::default(), vectors: vec![vector], tokens })
            }
            Self::GeminiBatch => {
                let path = Path::Root.field("embeddings");
                let vectors = reader.array(fields.need("embeddings")?, &path, gemini_vector)?;
                let tokens = gemini_tokens(fields, reader)?;
                Ok(EmbeddingReply { model: Text::default(), vectors, tokens })
            }
        })
    }

    /// Writes a reply to whoever asked this.
    ///
    /// # Errors
    /// When a vector of the provider's is none.
    pub fn encode_reply(
        self,
        reply: &EmbeddingReply<'_>,
        asked: &EmbeddingRequest<'_>,
        losses: &mut Losses,
    ) -> Result<Vec<u8>, Invalid> {
        let EmbeddingReply { model, vectors, tokens } = reply;
        let wants_base64 = self == Self::Openai && asked.base64;
        let vectors: Vec<Vector<'_>> = vectors
            .iter()
            .enumerate()
            .map(|(index, vector)| vector.turned(wants_base64).ok_or_else(|| no_vector(index)))
            .collect::<Result<_, _>>()?;
        let mut out = Vec::with_capacity(256);
        object(&mut out, |object| match self {
            Self::Openai => {
                object.text("object", "list");
                object.array("data", |array| {
                    for (index, vector) in vectors.iter().enumerate() {
                        array.object(|object| {
                            object.text("object", "embedding");
                            object.whole("index", index as u64);
                            match vector {
                                Vector::Numbers(raw) => object.raw("embedding", raw),
                                Vector::Base64(text) => object.text("embedding", text),
                            }
                        });
                    }
                });
                object.text("model", if model.is_empty() { &asked.model } else { model });
                object.object("usage", |object| {
                    object.whole("prompt_tokens", tokens.unwrap_or(0));
                    object.whole("total_tokens", tokens.unwrap_or(0));
                });
            }
            Self::GeminiOne | Self::GeminiBatch => {
                let values = |vector: &Vector<'_>| match vector {
                    Vector::Numbers(raw) | Vector::Base64(raw) => raw.to_string(),
                };
                if self == Self::GeminiBatch {
                    object.array("embeddings", |array| {
                        vectors
                            .iter()
                            .for_each(|vector| array.object(|object| object.raw("values", &values(vector))));
                    });
                } else if let Some(vector) = vectors.first() {
                    object.object("embedding", |object| object.raw("values", &values(vector)));
                }
                if let Some(tokens) = tokens {
                    object.object("usageMetadata", |object| object.whole("promptTokenCount", *tokens));
                }
            }
        });
        if self == Self::GeminiOne && vectors.len() > 1 {
            losses.add(What::Candidates, "data[1]");
        }
        Ok(out)
    }
}

impl EmbeddingRequest<'_> {
    /// Which of Gemini's shapes it takes.
    #[must_use]
    pub fn gemini_shape(&self) -> Shape {
        if self.inputs.len() == 1 { Shape::GeminiOne } else { Shape::GeminiBatch }
    }
}

impl Vector<'_> {
    /// In base64, or in numbers.
    fn turned(&self, base64: bool) -> Option<Vector<'_>> {
        Some(match (self, base64) {
            (Self::Numbers(raw), false) => Vector::Numbers(Cow::Borrowed(raw)),
            (Self::Base64(text), true) => Vector::Base64(Cow::Borrowed(text)),
            (Self::Numbers(raw), true) => {
                let Value::Array(items) = parse(raw.as_bytes()).ok()?.value else { return None };
                let mut bytes = Vec::with_capacity(items.len() * 4);
                for item in items {
                    let Value::Number(text) = item.value else { return None };
                    bytes.extend_from_slice(&text.parse::<f32>().ok()?.to_le_bytes());
                }
                Vector::Base64(Cow::Owned(STANDARD.encode(bytes)))
            }
            (Self::Base64(text), false) => {
                let bytes = STANDARD.decode(text.as_bytes()).ok()?;
                let floats = bytes.chunks_exact(4);
                if !floats.remainder().is_empty() {
                    return None;
                }
                let mut out = String::with_capacity(bytes.len() * 3);
                for (index, float) in floats.enumerate() {
                    let value = f32::from_le_bytes(float.try_into().ok()?);
                    // JSON has no infinity.
                    if !value.is_finite() {
                        return None;
                    }
                    out.push_str(if index == 0 { "[" } else { "," });
                    out.push_str(&value.to_string());
                }
                out.push_str(if out.is_empty() { "[]" } else { "]" });
                Vector::Numbers(Cow::Owned(out))
            }
        })
    }
}

fn no_vector(index: usize) -> Invalid {
    Invalid::new(Reason::Value, format!("data[{index}].embedding"), "The provider's vector cannot be read.")
}

fn write_input(input: &Input<'_>, array: &mut Array<'_>) {
    match input {
        Input::Text(text) => array.text(text),
        Input::Tokens(raw) => array.raw(raw),
    }
}

fn openai_request<'a>(fields: &mut Fields<'a, '_>) -> Result<EmbeddingRequest<'a>, Invalid> {
    let path = Path::Root.field("input");
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Path::Root.field("encoding_format").refused("This must be float or base64.")),
    };
    let node = fields.need("input")?;
    let inputs = match node.value {
        Value::Text(text) => vec![Input::Text(text)],
        Value::Array(items) if items.is_empty() => return Err(path.refused("There is no input.")),
        Value::Array(items) if matches!(items[0].value, Value::Number(_)) => {
            tokens(&items, &path)?;
            vec![Input::Tokens(Cow::Borrowed(node.raw))]
        }
        Value::Array(items) => bounded(items, &path)?
            .into_iter()
            .enumerate()
            .map(|(index, item)| one_input(item, &path.item(index)))
            .collect::<Result<_, _>>()?,
        _ => return Err(path.refused("This must be a string, or an array of strings or tokens.")),
    };
    Ok(EmbeddingRequest {
        model: fields.need_text("model")?,
        inputs,
        dimensions: fields.whole("dimensions")?,
        base64,
        user: fields.text("user")?,
        task: None,
        title: None,
    })
}

fn bounded<'a>(items: Vec<Node<'a>>, path: &Path<'_>) -> Result<Vec<Node<'a>>, Invalid> {
    if items.len() > MAX_INPUTS {
        let message = format!("There may be at most {MAX_INPUTS}.");
        return Err(Invalid::new(Reason::TooLarge, path.to_string(), message));
    }
    Ok(items)
}

fn one_input<'a>(node: Node<'a>, path: &Path<'_>) -> Result<Input<'a>, Invalid> {
    match node.value {
        Value::Text(text) => Ok(Input::Text(text)),
        Value::Array(items) => tokens(&items, path).map(|()| Input::Tokens(Cow::Borrowed(node.raw))),
        _ => Err(path.refused("This must be a string or an array of tokens.")),
    }
}

fn tokens(items: &[Node<'_>], path: &Path<'_>) -> Result<(), Invalid> {
    match items.iter().position(|item| !matches!(item.value, Value::Number(_))) {
        Some(index) => Err(path.item(index).refused("This must be the number of a token.")),
        None => Ok(()),
    }
}

fn gemini_request<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
) -> Result<EmbeddingRequest<'a>, Invalid> {
    let path = fields.path();
    let text = reader.object(fields.need("content")?, &path.field("content"), |fields, reader| {
        fields.text("role")?;
        let at = path.field("content");
        let parts = reader.array(fields.need("parts")?, &at.field("parts"), |node, path, reader| {
            reader.object(node, path, |fields, reader| {
                let text = fields.text("text")?;
                if text.is_none() {
                    fields.take_rest();
                    reader.loses(What::UnknownPart, path);
                }
                Ok(text)
            })
        })?;
        let mut texts: Vec<_> = parts.into_iter().flatten().collect();
        match texts.len() {
            0 => Err(at.field("parts").refused("There is no text.")),
            1 => Ok(texts.remove(0)),
            _ => Ok(Cow::Owned(texts.join("\n"))),
        }
    })?;
    let dimensions = fields.take_either("outputDimensionality", "output_dimensionality");
    let task = fields.take_either("taskType", "task_type");
    let whole = |node: Node<'a>| {
        let path = path.field("outputDimensionality");
        let number = node.into_number(&path)?.as_u64();
        number.ok_or_else(|| path.refused("This must be a whole number, and not negative."))
    };
    Ok(EmbeddingRequest {
        model: fields.text("model")?.unwrap_or_default(),
        inputs: vec![Input::Text(text)],
        dimensions: dimensions.map(whole).transpose()?,
        base64: false,
        user: None,
        task: task.map(|node| node.into_text(&path.field("taskType"))).transpose()?,
        title: fields.text("title")?,
    })
}

/// Each of a batch is a request of its own; what differs from the first one is lost.
fn gemini_batch<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
) -> Result<EmbeddingRequest<'a>, Invalid> {
    let path = Path::Root.field("requests");
    let mut all: Option<EmbeddingRequest<'a>> = None;
    let node = fields.need("requests")?;
    if let Value::Array(items) = &node.value
        && items.len() > MAX_INPUTS
    {
        let message = format!("There may be at most {MAX_INPUTS}.");
        return Err(Invalid::new(Reason::TooLarge, path.to_string(), message));
    }
    reader.array(node, &path, |node, path, reader| {
        let one = reader.object(node, path, gemini_request)?;
        match &mut all {
            None => all = Some(one),
            Some(all) => {
                for (differs, name) in [
                    (all.dimensions != one.dimensions, "outputDimensionality"),
                    (all.task != one.task, "taskType"),
                    (all.title != one.title, "title"),
                ] {
                    if differs {
                        reader.loses(What::PartDetail, &path.field(name));
                    }
                }
                all.inputs.extend(one.inputs);
            }
        }
        Ok(())
    })?;
    all.ok_or_else(|| path.refused("There is no request."))
}

fn openai_reply<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<EmbeddingReply<'a>, Invalid> {
    fields.text("object")?;
    fields.text("id")?;
    fields.take("created");
    let path = Path::Root.field("data");
    let mut vectors = reader.array(fields.need("data")?, &path, |node, path, reader| {
        reader.object(node, path, |fields, _| {
            fields.text("object")?;
            let index = fields.whole("index")?.unwrap_or(0);
            let node = fields.need("embedding")?;
            let vector = match node.value {
                Value::Text(text) => Vector::Base64(text),
                Value::Array(_) => Vector::Numbers(Cow::Borrowed(node.raw)),
                _ => return Err(path.field("embedding").refused("This must be an array or base64.")),
            };
            Ok((index, vector))
        })
    })?;
    // Stable: servers that tell no index keep their order.
    vectors.sort_by_key(|(index, _)| *index);
    let tokens = match fields.take("usage") {
        Some(node) => crate::dialect::Dialect::OpenaiChat.decode_usage(&node).input,
        None => None,
    };
    let vectors = vectors.into_iter().map(|(_, vector)| vector).collect();
    Ok(EmbeddingReply { model: fields.text("model")?.unwrap_or_default(), vectors, tokens })
}

fn gemini_vector<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Vector<'a>, Invalid> {
    reader.object(node, path, |fields, _| {
        fields.take("shape");
        fields.take("statistics");
        Ok(Vector::Numbers(Cow::Borrowed(fields.need("values")?.raw)))
    })
}

fn gemini_tokens(fields: &mut Fields<'_, '_>, reader: &mut Reader) -> Result<Option<u64>, Invalid> {
    let Some(node) = fields.take_either("usageMetadata", "usage_metadata") else { return Ok(None) };
    reader.object(node, &Path::Root.field("usageMetadata"), |fields, _| {
        let tokens = fields.whole("promptTokenCount")?;
        fields.take_rest();
        Ok(tokens)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn translated(from: Shape, to: Option<Shape>, body: &str) -> Result<(String, usize), Invalid> {
        let mut reader = Reader::default();
        let request = from.decode_request(body.as_bytes(), &mut reader)?;
        let to = to.unwrap_or_else(|| request.gemini_shape());
        let written = to.encode_request(&request, "target", &mut reader.losses)?;
        Ok((String::from_utf8_lossy(&written).into_owned(), reader.losses.count()))
    }

    #[test]
    fn requests_change_their_shape() {
        use Shape::{GeminiBatch, GeminiOne, Openai};
        for (name, from, to, body, expected, losses) in [
            (
                "one",
                Openai,
                None,
                r#"{"model":"m","input":"a"}"#,
                r#"{"model":"models/target","content":{"parts":[{"text":"a"}]}}"#,
                0,
            ),
            (
                "dimensions",
                Openai,
                None,
                r#"{"model":"m","input":"a","dimensions":256,"encoding_format":"base64"}"#,
                r#"{"model":"models/target","content":{"parts":[{"text":"a"}]},"outputDimensionality":256}"#,
                0,
            ),
            (
                "a batch",
                Openai,
                None,
                r#"{"model":"m","input":["a","b"],"user":"u"}"#,
                r#"{"requests":[{"model":"models/target","content":{"parts":[{"text":"a"}]}},{"model":"models/target","content":{"parts":[{"text":"b"}]}}]}"#,
                1,
            ),
            (
                "unknown",
                Openai,
                Some(Openai),
                r#"{"model":"m","input":"a","x":1}"#,
                r#"{"model":"target","input":"a"}"#,
                1,
            ),
            (
                "tokens",
                Openai,
                Some(Openai),
                r#"{"model":"m","input":[1, 2],"encoding_format":"base64"}"#,
                r#"{"model":"target","input":[1, 2],"encoding_format":"base64"}"#,
                0,
            ),
            (
                "lists of tokens",
                Openai,
                Some(Openai),
                r#"{"model":"m","input":[[1],[2]]}"#,
                r#"{"model":"target","input":[[1],[2]]}"#,
                0,
            ),
            (
                "Gemini's",
                GeminiOne,
                Some(Openai),
                r#"{"content":{"parts":[{"text":"a"},{"text":"b"}]},"taskType":"RETRIEVAL_QUERY","outputDimensionality":3}"#,
                r#"{"model":"target","input":"a\nb","dimensions":3}"#,
                1,
            ),
            (
                "Gemini's batch",
                GeminiBatch,
                Some(Openai),
                r#"{"requests":[{"content":{"parts":[{"text":"a"}]},"output_dimensionality":3},{"content":{"parts":[{"text":"b"}]}}]}"#,
                r#"{"model":"target","input":["a","b"],"dimensions":3}"#,
                1,
            ),
        ] {
            let expected = Ok((expected.to_owned(), losses));
            assert_eq!(translated(from, to, body), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (body, place) in [
            (r#"{"model":"m"}"#, "input"),
            (r#"{"model":"m","input":[]}"#, "input"),
            (r#"{"model":"m","input":[1,"a"]}"#, "input[1]"),
            (r#"{"model":"m","input":["a",true]}"#, "input[1]"),
            (r#"{"model":"m","input":"a","encoding_format":"hex"}"#, "encoding_format"),
            (r#"{"input":"a"}"#, "model"),
            (r#"{"model":"m","input":[[1]]}"#, "input[0]"),
        ] {
            let refused = translated(Shape::Openai, None, body).expect_err(body);
            assert_eq!(refused.path, place, "{body}");
        }
    }

    #[test]
    fn replies_change_their_shape() {
        let one = br#"{"embedding":{"values":[0.5,-1.25e0, 3]},"usageMetadata":{"promptTokenCount":4}}"#;
        let two = br#"{"object":"list","model":"m","data":[{"object":"embedding","index":1,"embedding":[2]},{"object":"embedding","index":0,"embedding":"AAAAPwAAoL8="}],"usage":{"prompt_tokens":4,"total_tokens":4}}"#;
        let wants =
            |base64| EmbeddingRequest { model: "asked".into(), base64, ..EmbeddingRequest::default() };
        for (from, body, to, base64, expected) in [
            (
                Shape::GeminiOne,
                &one[..],
                Shape::Openai,
                false,
                r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1.25e0, 3]}],"model":"asked","usage":{"prompt_tokens":4,"total_tokens":4}}"#,
            ),
            (
                Shape::GeminiOne,
                &one[..],
                Shape::Openai,
                true,
                r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AAAAPwAAoL8AAEBA"}],"model":"asked","usage":{"prompt_tokens":4,"total_tokens":4}}"#,
            ),
            (
                Shape::Openai,
                &two[..],
                Shape::GeminiBatch,
                false,
                r#"{"embeddings":[{"values":[0.5,-1.25]},{"values":[2]}],"usageMetadata":{"promptTokenCount":4}}"#,
            ),
        ] {
            let mut reader = Reader::default();
            let reply = from.decode_reply(body, &mut reader).expect("it is one");
            let written =
                to.encode_reply(&reply, &wants(base64), &mut reader.losses).expect("it can be written");
            assert_eq!(String::from_utf8_lossy(&written), expected);
            assert!(reader.losses.is_empty());
        }
    }

    proptest! {
        /// Floats come back from base64 as they were, to the bit.
        #[test]
        fn base64_keeps_floats(floats in proptest::collection::vec(any::<f32>().prop_filter("JSON", |f| f.is_finite()), 0..20)) {
            let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
            let packed = Vector::Base64(STANDARD.encode(&bytes).into());
            let numbers = packed.turned(false).expect("they are floats");
            let back = numbers.turned(true).expect("they are numbers");
            prop_assert_eq!(back, packed.clone());
        }
    }
}
