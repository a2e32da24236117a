//! Asks targets: what a request becomes for each, in which lane, and who is next when one fails.

use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gateway_llm::counting;
use gateway_llm::dialect::{self, Asked, Dialect};
use gateway_llm::embeddings::Shape;
use gateway_llm::failure::FailureKind;
use gateway_llm::frames::Framing;
use gateway_llm::json::Reader;
use gateway_llm::loss::Losses;
use gateway_llm::neutral;
use gateway_llm::target::{Quirks, Target};
use http::request::Parts;

use crate::model::{Found, LlmRoute, LlmTarget, Provider, model_facts};
use crate::observe::llm::{Lane, ModelMeter};

use super::super::body::RequestBody;
use super::super::exchange::Exchange;
use super::super::gather::Gathered;
use super::super::headers::Ready;
use super::super::pipeline;
use super::super::problem::Kind;
use super::super::record::Spent;
use super::super::upstream::Delivery;
use super::answer::{Answer, Awaited, FINAL, Judged};
use super::ask::{Ask, Changes};
use super::call::{Api, Call};
use super::embedding::{self, Embedding};
use super::failure::{INVALID, LOSSY, NO_TARGET, Refusal};
use super::models;
use super::sending::{Sending, names_model};

/// A request, and what its route says.
pub(super) struct Asking<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) head: &'a Parts,
    pub(super) settings: LlmRoute,
    pub(super) changes: Option<&'a Ready>,
}

/// Who is asked.
#[derive(Clone, Copy)]
struct Chosen<'a> {
    provider: &'a Provider,
    /// As the provider calls it.
    model: &'a str,
    meter: &'a Rc<ModelMeter>,
    /// Whether somebody else can be asked.
    has_next: bool,
}

/// What a request becomes for one target.
struct Prepared {
    body: Bytes,
    lane: Lane,
    hides_usage: bool,
    asked: Option<Asked>,
    embedding: Option<Embedding>,
    losses: Losses,
}

/// A request as the neutral form has it, read when the first target needs it.
struct Neutral<'b> {
    request: neutral::Request<'b>,
    losses: Losses,
}

impl<'a> Asking<'a> {
    /// Asks one target after the other, until one answers.
    pub(super) async fn answer(
        &self,
        exchange: &mut Exchange,
        gathered: &Gathered,
    ) -> Result<Answer, Refusal> {
        let local = Rc::clone(exchange.local());
        let body = gathered.bytes();
        let ask = Ask::read(self.call, self.head, body)?;
        let mut asked_by = &*ask.model;
        let named;
        let targets: &[LlmTarget] = match local.llm().find(&ask.model) {
            Some(Found::Group(targets)) => targets,
            Some(Found::Named(provider, model)) => {
                asked_by = model;
                named = [LlmTarget { provider, model: None }];
                &named
            }
            None => return Err(models::unknown(&ask.model)),
        };
        let mut neutral = None;
        let mut last = None;
        for (index, target) in targets.iter().enumerate() {
            let Some(provider) = local.llm().providers.get(target.provider) else { continue };
            let model = target.model.as_ref().map_or(asked_by, |(model, _)| model);
            let prepared = match self.prepare(&ask, body, provider, (model, target), &mut neutral) {
                Ok(prepared) => prepared,
                // The request is wrong, whoever is asked.
                Err(refusal) if ![LOSSY, NO_TARGET].contains(&refusal.why) => return Err(refusal),
                Err(refusal) => {
                    last = last.or(Some((refusal, FINAL)));
                    continue;
                }
            };
            let meter = local.llm_meter().of(&provider.name, model);
            let has_next = index + 1 < targets.len();
            let judged = self
                .ask_one(exchange, &ask, Chosen { provider, model, meter: &meter, has_next }, prepared)
                .await;
            match judged {
                Judged::Taken(answer) => return Ok(answer),
                Judged::Failed(refusal, why) if why == FINAL || !has_next => return Err(refusal),
                Judged::Failed(refusal, why) => {
                    tracing::debug!(provider = provider.name, model, why, "the next target is asked");
                    meter.gave_up(why);
                    last = Some((refusal, why));
                }
            }
        }
        let nobody = || Refusal::new(NO_TARGET, FailureKind::NotFound, "Nobody serves this model.");
        Err(last.map_or_else(nobody, |(refusal, _)| refusal))
    }

    /// One attempt at one target.
    async fn ask_one(
        &self,
        exchange: &mut Exchange,
        ask: &Ask<'_>,
        chosen: Chosen<'_>,
        prepared: Prepared,
    ) -> Judged {
        let Chosen { provider, model, meter, has_next } = chosen;
        let Prepared { body, lane, hides_usage, asked, embedding, losses } = prepared;
        let local = Rc::clone(exchange.local());
        let now = Instant::now();
        // None that stands in for it: keys go to the provider's own host. The next target does instead.
        let Some(upstream) = local.upstreams().get(provider.upstream) else {
            let refusal = Refusal::new(NO_TARGET, FailureKind::Server, "The provider has no upstream.");
            return Judged::Failed(refusal, "connect");
        };
        let watch = Rc::clone(exchange.watch());
        let timeout = upstream.settings().response_timeout();
        let body = RequestBody::of_bytes(body, Rc::clone(&watch), timeout);
        let framing = ask.framing;
        let Self { call, head, settings, changes } = *self;
        let tail = embedding.as_ref().map(Embedding::tail);
        let sending = Sending { call, head, provider, model, framing, lane, tail, changes };
        let Some(request) = sending.request(body) else {
            let message = "The model's name cannot stand in a path.";
            return Judged::Failed(Refusal::new(INVALID, FailureKind::InvalidRequest, message), FINAL);
        };
        if let Some(record) = exchange.record() {
            record.goes_to(&upstream.settings().name);
            record.asks(Spent::new(&provider.name, model, lane, losses.count()));
        }
        let client = upstream
            .wants_client()
            .then(|| exchange.session().with_trusted(|peer, trusted| peer.client(&head.headers, trusted)));
        let ends = exchange.session().ends();
        let delivery = Delivery { watch: &watch, now, ends, client, trail: exchange.trail() };
        let (response, lease) = match upstream.send(request, delivery).await {
            Ok(answer) => answer,
            Err(kind) => {
                let problem = pipeline::unanswered(&watch, kind);
                let is_clients = matches!(problem.kind, Kind::BadRequest | Kind::BodyTimeout);
                let why = if is_clients { FINAL } else { why_unanswered(problem.kind) };
                return Judged::Failed(Refusal::of_problem(&problem), why);
            }
        };
        if let Err(problem) = pipeline::check_response(&response, false) {
            return Judged::Failed(Refusal::of_problem(&problem), "bad_answer");
        }
        let awaited = Awaited {
            client: call.dialect,
            call,
            provider,
            model: &ask.model,
            framing,
            lane,
            hides_usage,
            asked,
            embedding,
            losses,
            settings,
            watch: &watch,
            started: exchange.started(),
            meter,
            has_next,
        };
        awaited.judge(response, lease).await
    }

    /// The request as this target gets it.
    fn prepare<'b>(
        &self,
        ask: &Ask<'b>,
        body: &'b Bytes,
        provider: &Provider,
        (model, target): (&str, &LlmTarget),
        neutral: &mut Option<Neutral<'b>>,
    ) -> Result<Prepared, Refusal>
    where
        'a: 'b,
    {
        let client = self.call.dialect;
        let counts = self.call.counts() && counting::counts(provider.dialect) && client != provider.dialect;
        if !matches!(self.call.api, Api::Generate { .. }) && !counts {
            let shape = embedding::shape_of(self.call);
            // Gemini's requests for embeddings name the model inside, too, and must agree with the path.
            let names_inside = client == Dialect::Gemini && *ask.model != *model;
            if let Some(shape) = shape.filter(|_| names_inside || !is_family(client, provider.dialect))
                && let Some(prepared) = self.embed(shape, ask, body, provider, model)?
            {
                return Ok(prepared);
            }
            if !is_family(client, provider.dialect) {
                let message = format!("The provider `{}` does not serve this API.", provider.name);
                return Err(Refusal::new(NO_TARGET, FailureKind::InvalidRequest, message));
            }
            return self.splice(ask, body, provider, model);
        }
        // Where the server differs within messages and tools, too, they have to be read.
        let is_chat = client == Dialect::OpenaiChat;
        if client == provider.dialect && (!is_chat || !differs(provider) || provider.quirks.edits_suffice()) {
            return self.splice(ask, body, provider, model);
        }
        if ask.is_continued {
            let message = "The request goes on with an answer that its provider keeps, and this model is served by another.";
            return Err(Refusal::new(NO_TARGET, FailureKind::InvalidRequest, message));
        }
        let neutral = match neutral {
            Some(neutral) => neutral,
            None => neutral.insert(self.decode(ask, body)?),
        };
        let facts = target
            .model
            .as_ref()
            .map_or_else(|| model_facts(provider.quirks.name, model), |(_, facts)| *facts);
        let target = Target { model, model_facts: facts, quirks: provider.quirks };
        self.translate(ask, provider, &target, neutral)
    }

    /// The client's own bytes, but for what must change.
    fn splice(
        &self,
        ask: &Ask<'_>,
        body: &Bytes,
        provider: &Provider,
        model: &str,
    ) -> Result<Prepared, Refusal> {
        let is_chat =
            provider.dialect == Dialect::OpenaiChat && matches!(self.call.api, Api::Generate { .. });
        let quirks = Some(&provider.quirks).filter(|_| is_chat && differs(provider));
        let losses = quirks.map(|quirks| ask.losses(quirks)).unwrap_or_default();
        if self.settings.refuses_losses && !losses.is_empty() {
            return Err(Refusal::lossy(&losses));
        }
        let tells_usage = is_chat && provider.quirks.stream_options;
        let asks_usage = tells_usage && ask.framing.is_some() && !ask.wants_usage;
        let model = names_model(provider).then_some(model);
        let (body, is_changed) = ask.spliced(body, Changes { model, asks_usage, quirks });
        let lane = if is_changed { Lane::Splice } else { Lane::Pass };
        Ok(Prepared { body, lane, hides_usage: asks_usage, asked: None, embedding: None, losses })
    }

    /// Texts that become vectors, in the provider's shape. `None`: it has none.
    fn embed(
        &self,
        shape: Shape,
        ask: &Ask<'_>,
        body: &Bytes,
        provider: &Provider,
        model: &str,
    ) -> Result<Option<Prepared>, Refusal> {
        let mut losses = Losses::default();
        let asked = Embedding::request((shape, &ask.model), body, (provider.dialect, model), &mut losses);
        // Tokens of one provider's mean nothing to another, so that the next target may be right.
        let other = |invalid| Refusal { why: NO_TARGET, ..Refusal::invalid(&invalid) };
        let Some((embedding, written)) = asked.map_err(other)? else {
            return Ok(None);
        };
        if self.settings.refuses_losses && !losses.is_empty() {
            return Err(Refusal::lossy(&losses));
        }
        Ok(Some(Prepared {
            body: written.into(),
            lane: Lane::Translate,
            hides_usage: false,
            asked: None,
            embedding: Some(embedding),
            losses,
        }))
    }

    fn decode<'b>(&self, ask: &Ask<'b>, body: &'b Bytes) -> Result<Neutral<'b>, Refusal>
    where
        'a: 'b,
    {
        let model = match &self.call.api {
            Api::Generate { model, .. } | Api::Other { model, .. } => model.as_deref(),
            Api::Models | Api::Model(_) => None,
        };
        let call = dialect::Call { model, stream: ask.framing.is_some() };
        let mut reader = Reader::default();
        let dialect = self.call.dialect;
        let request = if self.call.counts() {
            counting::decode_request(dialect, body, &call, &mut reader)
        } else {
            dialect.decode_request(body, &call, &mut reader)
        };
        let request = request.map_err(|invalid| Refusal::invalid(&invalid))?;
        Ok(Neutral { request, losses: reader.losses })
    }

    fn translate(
        &self,
        ask: &Ask<'_>,
        provider: &Provider,
        target: &Target<'_>,
        neutral: &Neutral<'_>,
    ) -> Result<Prepared, Refusal> {
        let mut losses = neutral.losses.clone();
        let (dialect, request) = (provider.dialect, &neutral.request);
        let encoded = if self.call.counts() {
            counting::encode_request(dialect, request, target, &mut losses)
        } else {
            dialect.encode_request(request, target, &mut losses)
        };
        let encoded = encoded.map_err(|invalid| Refusal::invalid(&invalid))?;
        if self.settings.refuses_losses && !losses.is_empty() {
            return Err(Refusal::lossy(&losses));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let asked = Asked::new(&neutral.request, ask.framing.unwrap_or(Framing::Events), now);
        Ok(Prepared {
            body: encoded.into(),
            lane: Lane::Translate,
            hides_usage: false,
            asked: Some(asked),
            embedding: None,
            losses,
        })
    }
}

/// Whether APIs beside those that are translated are the same: OpenAI's two dialects have all others in common.
fn is_family(client: Dialect, provider: Dialect) -> bool {
    let is_openai = |dialect| matches!(dialect, Dialect::OpenaiChat | Dialect::OpenaiResponses);
    client == provider || (is_openai(client) && is_openai(provider))
}

/// Whether its server is said to differ from OpenAI's. Where nothing is said, nothing is changed.
fn differs(provider: &Provider) -> bool {
    provider.quirks != Quirks::default()
}

fn why_unanswered(kind: Kind) -> &'static str {
    match kind {
        Kind::UpstreamTimeout => "timeout",
        Kind::UpstreamClosed | Kind::UpstreamProtocol => "closed",
        Kind::UpstreamBreaker | Kind::UpstreamOverloaded | Kind::UpstreamUnhealthy => "unavailable",
        _ => "connect",
    }
}
