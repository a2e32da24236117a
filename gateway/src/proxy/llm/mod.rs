//! Requests to models: which target gets one, in which lane it goes there, and how the answer comes back.

mod answer;
mod ask;
mod asking;
mod call;
mod coding;
mod embedding;
mod failure;
mod form;
mod models;
mod sending;
mod source;
mod spoken;

use std::time::{Duration, Instant};

use gateway_llm::dialect::Dialect;
use http::header::{CONTENT_ENCODING, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Version};
use http_body::Body as _;

use crate::model::{BodyBounds, LlmRoute};

use super::body::ResponseBody;
use super::exchange::{Exchange, Reply};
use super::gather::{self, Gathered};
use super::headers::Ready;
use super::incoming::Incoming;
use super::pipeline;
use super::problem::{Kind, Problem};
use super::record::OK;
use super::request;

use answer::{Answer, Comes, Whole};
use asking::Asking;
use call::Api;
use failure::Refusal;
pub(super) use spoken::Spoken;

/// Serves a request to a model: the stages of it, in order.
pub(super) async fn serve(
    mut exchange: Exchange,
    request: Request<Incoming>,
    gathered: Option<Gathered>,
    settings: LlmRoute,
    changes: Option<Ready>,
) -> Response<ResponseBody> {
    let (head, mut body) = request.into_parts();
    let mut has_body = gathered.is_none() && !body.is_end_stream();
    let path = request::route_path(&head.uri).map(|normal| normal.path);
    let called =
        path.as_ref().ok().and_then(|path| call::of(&head.method, path, &head.headers, head.uri.query()));
    let Some(call) = called else {
        let problem = Problem::new(Kind::NoRoute, "No API of an LLM is served under this method and path.");
        return pipeline::refuse(exchange, problem, has_body);
    };
    let listed = match &call.api {
        Api::Models => Some(Ok(models::list(exchange.local().llm(), call.dialect))),
        Api::Model(name) => Some(models::one(exchange.local().llm(), call.dialect, name)),
        Api::Generate { .. } | Api::Other { .. } => None,
    };
    match listed {
        Some(Ok(response)) => return pipeline::answer(exchange, response, has_body),
        Some(Err(refusal)) => return refuse(exchange, refusal, call.dialect, has_body),
        None => {}
    }
    let gathered = match gathered {
        Some(gathered) => Ok(gathered),
        None => gather_prompt(&exchange, &head, &mut body, settings).await,
    };
    let answered = match gathered {
        Err(problem) => Err(Refusal::of_problem(&problem)),
        Ok(gathered) => {
            has_body = false;
            let asking = Asking { call: &call, head: &head, settings, changes: changes.as_ref() };
            let limit = exchange.started() + settings.timeout;
            let answered =
                tokio::time::timeout_at(limit.into(), asking.answer(&mut exchange, &gathered)).await;
            answered.unwrap_or_else(|_| {
                Err(Refusal::of_problem(&Problem::new(Kind::UpstreamTimeout, "No target answered in time.")))
            })
        }
    };
    match answered {
        Ok(answer) => deliver(exchange, answer),
        Err(refusal) => refuse(exchange, refusal, call.dialect, has_body),
    }
}

async fn gather_prompt(
    exchange: &Exchange,
    head: &Parts,
    body: &mut Incoming,
    settings: LlmRoute,
) -> Result<Gathered, Problem> {
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !head.headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Err(Problem::new(Kind::BodyCoding, "The request is compressed."));
    }
    let bounds = BodyBounds { max_bytes: settings.max_body_bytes, timeout: settings.body_timeout };
    let held = exchange.local().held_prompts();
    gather::gather_bytes(body, bounds, exchange.started(), exchange.watch(), held).await
}

/// The client gets an answer.
fn deliver(mut exchange: Exchange, answer: Answer) -> Response<ResponseBody> {
    match answer {
        Answer::Whole(whole) => {
            let Whole { mut response, usage, losses } = *whole;
            exchange.local().llm_meter().lost(&losses);
            if let (Some(usage), Some(record)) = (usage, exchange.record()) {
                record.used(&usage);
            }
            exchange.because(OK);
            pipeline::prepare_response(response.headers_mut());
            pipeline::answer(exchange, response, false)
        }
        Answer::Comes(comes) => {
            let Comes { head, delivered, losses } = *comes;
            exchange.local().llm_meter().lost(&losses);
            exchange.answered(head.status());
            let now = Instant::now();
            // The end of a provider's silence is told the client in its own words, before the watch would cut it off.
            let idle = delivered.idle + delivered.idle / 4 + SLACK;
            exchange.watch().busy(now);
            exchange.watch().downloads(now, idle);
            let reply = std::mem::take(exchange.reply());
            let mut response = head.map(|()| ResponseBody::Llm(Box::new(Spoken::new(delivered, exchange))));
            pipeline::prepare_response(response.headers_mut());
            pipeline::prepare_reply(reply, response.headers_mut());
            *response.version_mut() = Version::HTTP_11;
            response
        }
    }
}

/// How much later than a provider's silence ends a client that does not read is given up.
const SLACK: Duration = Duration::from_secs(5);

/// The client gets an error, in its own words.
fn refuse(
    mut exchange: Exchange,
    refusal: Refusal,
    dialect: Dialect,
    has_body: bool,
) -> Response<ResponseBody> {
    exchange.because(refusal.why);
    let mut response = refusal.into_response(dialect);
    let status = response.status();
    let Reply { changes, cors, deprecated, request_id, alternative, .. } = std::mem::take(exchange.reply());
    let changes = changes.filter(|changes| changes.always_errors);
    let reply = Reply { changes, cookie: None, cors, deprecated, request_id, alternative };
    pipeline::prepare_reply(reply, response.headers_mut());
    pipeline::answer_as(exchange, response, status, has_body)
}
