//! What becomes of a provider's answer: the client's own bytes, a translation, an error in the client's words, or a reason to
//! ask the next target.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use gateway_llm::counting;
use gateway_llm::dialect::{Asked, Dialect};
use gateway_llm::failure::{Failure, FailureKind};
use gateway_llm::fold::unfold;
use gateway_llm::frames::{Frames, Framing};
use gateway_llm::json::Reader;
use gateway_llm::loss::Losses;
use gateway_llm::meter::Meter;
use gateway_llm::neutral::{Event, Usage};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::model::{LlmRoute, Provider, ProviderKey};
use crate::observe::llm::{Lane, ModelMeter};

use super::super::incoming::Incoming;
use super::super::media_type;
use super::super::upstream::Lease;
use super::super::watch::Watch;
use super::call::{Api, Call};
use super::embedding::Embedding;
use super::failure::{RUBBISH, Refusal, kept};
use super::source::{Cut, Source};
use super::spoken::{Delivered, Passing, Translation, Verbatim};

/// Bytes of an answer that is translated whole. Pictures are the longest.
const MAX_REPLY: usize = 64 << 20;

/// Bytes of an error. A page of a load balancer's is some KiB.
const MAX_ERROR: usize = 256 << 10;

/// What the client is told of losses.
pub(super) const LOSSES: HeaderName = HeaderName::from_static("gateway-llm-losses");

/// Bytes of that field, of those that many a client takes for all of a header.
const MAX_LOSSES_BYTES: usize = 2048;

/// What an answer is read for.
pub(super) struct Awaited<'a> {
    pub(super) client: Dialect,
    pub(super) call: &'a Call<'a>,
    pub(super) provider: &'a Provider,
    /// The model as the client calls it.
    pub(super) model: &'a str,
    pub(super) framing: Option<Framing>,
    pub(super) lane: Lane,
    /// The usage of a stream was asked for by the gateway alone.
    pub(super) hides_usage: bool,
    /// What of the request is needed for a translation, and what of it was lost.
    pub(super) asked: Option<Asked>,
    /// The same of embeddings.
    pub(super) embedding: Option<Embedding>,
    pub(super) losses: Losses,
    pub(super) settings: LlmRoute,
    /// When the request came.
    pub(super) started: Instant,
    pub(super) watch: &'a Watch,
    pub(super) meter: &'a Rc<ModelMeter>,
    /// Whether somebody else can be asked.
    pub(super) has_next: bool,
}

/// What the client gets.
pub(super) enum Answer {
    /// All of it is here.
    Whole(Box<Whole>),
    /// It comes by and by.
    Comes(Box<Comes>),
}

/// An answer that is here.
pub(super) struct Whole {
    pub(super) response: Response<Bytes>,
    pub(super) usage: Option<Usage>,
    pub(super) losses: Losses,
}

/// An answer that comes by and by.
pub(super) struct Comes {
    pub(super) head: Response<()>,
    pub(super) delivered: Delivered,
    pub(super) losses: Losses,
}

/// What becomes of it.
pub(super) enum Judged {
    Taken(Answer),
    /// The client is told of an error, unless there is somebody else to ask.
    Failed(Refusal, &'static str),
}

impl Awaited<'_> {
    /// Reads an answer as far as it has to be read before the client is answered.
    pub(super) async fn judge(self, response: Response<Incoming>, lease: Lease) -> Judged {
        let (mut head, incoming) = response.into_parts();
        let Ok(mut source) = Source::new(incoming, lease, &mut head.headers) else {
            return self.rubbish("The provider's answer is compressed in a way that is not known.");
        };
        self.meter.answered(self.lane, head.status.as_u16());
        match head.status.as_u16() {
            200..=299 => {}
            400.. => return self.refused(head.status, &head.headers, source).await,
            _ => return self.rubbish("The provider answered with a redirect, which is not followed."),
        }
        let idle = self.provider.idle_timeout;
        let is_generated = matches!(self.call.api, Api::Generate { .. });
        let kind = kind_of(&head.headers);
        if kind == ContentKind::Page || (is_generated && kind == ContentKind::Other) {
            return self.rubbish("The provider answered with something that is no answer of a model.");
        }
        let is_stream = kind == ContentKind::Events
            || (kind == ContentKind::Json
                && self.framing == Some(Framing::Items)
                && self.lane != Lane::Translate);
        if is_stream && self.framing.is_some() {
            if self.has_next
                && let Err(judged) = self.look_ahead(&mut source).await
            {
                return judged;
            }
            return self.stream(head.headers, source);
        }
        if self.lane == Lane::Translate {
            return match source.whole(self.watch, idle, MAX_REPLY).await {
                Ok(body) => self.translate(&head.headers, &body),
                Err(cut) => self.cut(cut),
            };
        }
        if kind == ContentKind::Json && is_generated {
            match source.next(self.watch, idle).await {
                Some(Ok(first)) if matches!(first.trim_ascii_start().first(), Some(b'{' | b'[') | None) => {
                    source.put_back([first]);
                }
                Some(Err(cut)) => return self.cut(cut),
                Some(Ok(_)) | None => {
                    return self.rubbish("The provider answered with something that is no JSON.");
                }
            }
        }
        self.pass(head.status, head.headers, source)
    }

    /// Waits for the first event of a stream, for a while: an error in it is one that another target may not have.
    async fn look_ahead(&self, source: &mut Source) -> Result<(), Judged> {
        let mut ahead = Vec::new();
        let looked = tokio::time::timeout(self.settings.hold, self.first_event(source, &mut ahead)).await;
        source.put_back(ahead);
        match looked {
            Ok(Some(failed)) => Err(failed),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    async fn first_event(&self, source: &mut Source, ahead: &mut Vec<Bytes>) -> Option<Judged> {
        let mut frames =
            Frames::new(if self.lane == Lane::Translate { Framing::Events } else { self.framing? });
        let mut decoder = self.provider.dialect.stream_decoder();
        loop {
            let piece = match source.next(self.watch, self.provider.idle_timeout).await {
                Some(Ok(piece)) => piece,
                Some(Err(cut)) => return Some(self.cut(cut)),
                None if ahead.is_empty() => return Some(self.cut(Cut::Broken)),
                None => return None,
            };
            let (mut has_begun, mut failed) = (false, None);
            let fed = frames.feed(&piece, |frame| {
                decoder.step(&frame, &mut |event| match event {
                    Event::Failed(failure) if !has_begun => failed = Some(failure),
                    Event::Ping => {}
                    _ => has_begun = true,
                });
            });
            ahead.push(piece);
            if let Some(failure) = failed {
                return Some(Judged::Failed(
                    Refusal::of_provider(failure, &HeaderMap::new()),
                    "stream_error",
                ));
            }
            if has_begun || fed.is_err() {
                return None;
            }
        }
    }

    fn stream(self, headers: HeaderMap, source: Source) -> Judged {
        let (mut head, client) = (Response::new(()), self.client);
        let framing = self.framing.unwrap_or(Framing::Events);
        let passing = match self.asked.clone().filter(|_| self.lane == Lane::Translate) {
            Some(asked) => {
                *head.headers_mut() = kept(&headers);
                Passing::Translated(Box::new(Translation::new(self.provider.dialect, client, asked)))
            }
            None => {
                *head.headers_mut() = passed(headers);
                let meter = Meter::new(self.provider.dialect, Some(framing), self.hides_usage);
                Passing::Events(Box::new(Verbatim::new(meter, framing)))
            }
        };
        let kind =
            if framing == Framing::Events { "text/event-stream; charset=utf-8" } else { "application/json" };
        let fields = head.headers_mut();
        if self.lane == Lane::Translate {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        fields.remove(CONTENT_LENGTH);
        self.comes(head, source, passing)
    }

    fn comes(self, head: Response<()>, source: Source, passing: Passing) -> Judged {
        let Self { client, provider, model, settings, meter, losses, .. } = self;
        let delivered = Delivered {
            source,
            passing,
            client,
            model: model.to_owned(),
            idle: provider.idle_timeout,
            ping: settings.ping,
            ends: self.started + settings.max_answer,
            meter: Rc::clone(meter),
        };
        let mut head = head;
        note(&losses, head.headers_mut());
        Judged::Taken(Answer::Comes(Box::new(Comes { head, delivered, losses })))
    }

    /// The provider's own bytes.
    fn pass(self, status: StatusCode, headers: HeaderMap, source: Source) -> Judged {
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = passed(headers);
        let meter = Meter::new(self.provider.dialect, None, false);
        self.comes(head, source, Passing::Whole(Box::new(meter)))
    }

    /// An answer that came whole, in the client's words.
    fn translate(mut self, headers: &HeaderMap, body: &[u8]) -> Judged {
        if let Some(embedding) = self.embedding.take() {
            return self.translate_embeddings(&embedding, headers, body);
        }
        let Some(asked) = self.asked.take() else { return self.rubbish("Nothing was asked for.") };
        let mut reader = Reader::default();
        if self.call.counts() {
            return self.translate_count(headers, body);
        }
        let reply = match self.provider.dialect.decode_reply(body, &mut reader) {
            Ok(reply) => reply,
            Err(invalid) => {
                tracing::debug!(provider = self.provider.name, %invalid, "a provider's answer cannot be read");
                return self.rubbish("The provider answered with something that is no answer of a model.");
            }
        };
        if let Some(usage) = &reply.usage {
            self.meter.used(usage);
        }
        let mut losses = std::mem::take(&mut self.losses);
        losses.append(reader.losses);
        let written = match self.framing {
            None => self.client.encode_reply(&reply, &asked, &mut losses),
            // It was asked for a stream, and does not know how.
            Some(_) => {
                let (mut encoder, mut out) = (self.client.stream_encoder(asked), Vec::new());
                unfold(&reply, &mut |event| encoder.step(&event, &mut out));
                losses.append(std::mem::take(encoder.losses()));
                out
            }
        };
        let mut response = Response::new(Bytes::from(written));
        *response.headers_mut() = kept(headers);
        let kind = if self.framing == Some(Framing::Events) {
            "text/event-stream; charset=utf-8"
        } else {
            "application/json"
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        note(&losses, response.headers_mut());
        Judged::Taken(Answer::Whole(Box::new(Whole { response, usage: reply.usage, losses })))
    }

    /// Vectors, in the client's shape.
    fn translate_embeddings(self, embedding: &Embedding, headers: &HeaderMap, body: &[u8]) -> Judged {
        let mut losses = self.losses.clone();
        let Ok((written, usage)) = embedding.reply(body, &mut losses) else {
            return self.rubbish("The provider answered with something that is no embedding.");
        };
        if let Some(usage) = &usage {
            self.meter.used(usage);
        }
        let mut response = Response::new(Bytes::from(written));
        *response.headers_mut() = kept(headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        note(&losses, response.headers_mut());
        Judged::Taken(Answer::Whole(Box::new(Whole { response, usage, losses })))
    }

    /// How many tokens a request has, in the client's words.
    fn translate_count(self, headers: &HeaderMap, body: &[u8]) -> Judged {
        let mut reader = Reader::default();
        let Ok(count) = counting::decode_reply(self.provider.dialect, body, &mut reader) else {
            return self.rubbish("The provider answered with something that is no count of tokens.");
        };
        let mut losses = self.losses;
        losses.append(reader.losses);
        let mut response =
            Response::new(Bytes::from(counting::encode_reply(self.client, &count, &mut losses)));
        *response.headers_mut() = kept(headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        note(&losses, response.headers_mut());
        Judged::Taken(Answer::Whole(Box::new(Whole { response, usage: None, losses })))
    }

    /// A provider's error.
    async fn refused(self, status: StatusCode, headers: &HeaderMap, mut source: Source) -> Judged {
        let idle = self.provider.idle_timeout;
        let body = source.whole(self.watch, idle, MAX_ERROR).await.unwrap_or_default();
        let failure = self.provider.dialect.decode_failure(status.as_u16(), &body);
        let why = reason(status, &failure);
        let is_ours = !matches!(self.provider.key, ProviderKey::Pass) && matches!(status.as_u16(), 401 | 403);
        if is_ours {
            // It is about the gateway's key, and may repeat a part of it.
            let message =
                format!("The provider `{}` does not take the gateway's credentials.", self.provider.name);
            let failure = Failure { message, details: None, param: None, ..failure };
            return Judged::Failed(Refusal::of_provider(failure, headers), why);
        }
        let is_own = self.lane != Lane::Translate && kind_of(headers) == ContentKind::Json;
        if is_own && !self.has_next && gateway_llm::json::parse(&body).is_ok() {
            let mut response = Response::new(body);
            *response.status_mut() = status;
            *response.headers_mut() = passed(headers.clone());
            response.headers_mut().remove(CONTENT_LENGTH);
            return Judged::Taken(Answer::Whole(Box::new(Whole {
                response,
                usage: None,
                losses: Losses::default(),
            })));
        }
        Judged::Failed(Refusal::of_provider(failure, headers), why)
    }

    fn rubbish(&self, message: &'static str) -> Judged {
        let refusal =
            Refusal::new(RUBBISH, FailureKind::Server, message).with_status(StatusCode::BAD_GATEWAY);
        Judged::Failed(refusal, "bad_answer")
    }

    fn cut(&self, cut: Cut) -> Judged {
        let (kind, message, status) = match cut {
            Cut::Silent | Cut::Endless => {
                let message = "The provider stopped in the middle of its answer.";
                (FailureKind::Timeout, message, StatusCode::GATEWAY_TIMEOUT)
            }
            Cut::Broken => (
                FailureKind::Server,
                "The provider's answer broke off in the middle.",
                StatusCode::BAD_GATEWAY,
            ),
            Cut::TooLong => (
                FailureKind::Server,
                "The provider's answer is too long to be translated.",
                StatusCode::BAD_GATEWAY,
            ),
        };
        Judged::Failed(Refusal::new(RUBBISH, kind, message).with_status(status), "bad_answer")
    }
}

/// Why another target may do better; it stands in metrics.
fn reason(status: StatusCode, failure: &Failure) -> &'static str {
    match status.as_u16() {
        401 | 403 => "credentials",
        404 => "not_found",
        408 => "timeout",
        429 => "rate_limit",
        500.. => "server_error",
        _ if is_elsewhere(failure) => "not_found",
        _ => FINAL,
    }
}

/// The request itself is to blame: nobody else is asked.
pub(super) const FINAL: &str = "";

/// Whether what the request goes on with is kept by another target: then that one is asked.
fn is_elsewhere(failure: &Failure) -> bool {
    let codes = ["previous_response_not_found", "invalid_encrypted_content", "conversation_not_found"];
    failure.code.as_deref().is_some_and(|code| codes.contains(&code))
}

/// What a body calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentKind {
    Json,
    Events,
    /// A page for people: of a load balancer, a proxy, a login.
    Page,
    Other,
}

fn kind_of(headers: &HeaderMap) -> ContentKind {
    let Some(media) = headers.get(CONTENT_TYPE).and_then(|value| media_type::parse(value.as_bytes())) else {
        return ContentKind::Other;
    };
    let is = |essence: &str| media.essence().eq_ignore_ascii_case(essence);
    if is("text/event-stream") {
        ContentKind::Events
    } else if media.is_json() {
        ContentKind::Json
    } else if is("text/html") || is("application/xhtml+xml") {
        ContentKind::Page
    } else {
        ContentKind::Other
    }
}

/// The header of an answer that passes, without what is about the gateway's account or the provider's own connection.
fn passed(mut headers: HeaderMap) -> HeaderMap {
    // Names are compared, and only those that are there are looked up to be removed: most answers have one or two.
    while let Some(dropped) = headers.keys().find(|name| is_dropped(name)).cloned() {
        headers.remove(dropped);
    }
    headers
}

fn is_dropped(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "set-cookie"
            | "alt-svc"
            | "strict-transport-security"
            | "nel"
            | "report-to"
            | "openai-organization"
            | "openai-project"
            | "anthropic-organization-id"
            | "access-control-allow-origin"
            | "access-control-expose-headers"
            | "server"
            | "via"
    )
}

/// Says what was lost.
fn note(losses: &Losses, headers: &mut HeaderMap) {
    if losses.is_empty() {
        return;
    }
    let mut text = losses.to_string();
    if text.len() > MAX_LOSSES_BYTES {
        // Whole members of the list, and that there are more.
        let end = text[..MAX_LOSSES_BYTES].rfind(", ").unwrap_or(0);
        text.truncate(end);
        text.push_str(", more");
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(LOSSES, value);
    }
}
