//! From a request to its endpoint: who is asked, whether the key is there, and whose words an error is in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use http::{Method, Response};
use serde_json::{Value, json};

use super::answer::{Asked, answer};
use super::checks::{Checked, Problem, What, wrong};
use super::delivery::{Pieces, Reply, Resets, deliver};
use super::record::Record;
use super::script::Script;
use super::{Dialect, anthropic, anthropic_reply, chat, chat_reply, gemini, gemini_reply, responses, side};

/// Responses that can be asked for again, and scripts that are counted.
const KEPT: usize = 512;

/// What all connections share.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) record: Record,
    next: AtomicU64,
    /// Stored responses by id.
    responses: Mutex<VecDeque<(String, Value)>>,
    /// How often each script that fails a number of times was played.
    plays: Mutex<VecDeque<(String, usize)>>,
}

/// What is asked of which endpoint.
#[derive(Debug, PartialEq)]
enum Endpoint<'a> {
    Chat,
    Responses,
    Stored(&'a str),
    Messages,
    Count,
    ResponsesCount,
    Gemini(&'a str, &'a str),
    Embeddings,
    Models(Option<&'a str>),
    Transcription,
    Media(&'a str),
    Unknown,
}

fn endpoint<'a>(method: &Method, path: &'a str) -> Endpoint<'a> {
    let post = *method == Method::POST;
    if let Some((_, call)) = path.rsplit_once("/models/").filter(|_| post)
        && let Some((model, verb)) = call.rsplit_once(':')
    {
        return Endpoint::Gemini(model, verb);
    }
    // Below /v1, and below what Azure and others have before their paths.
    let last = |name: &str| {
        path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.starts_with('/'))
    };
    let media = ["images/generations", "moderations", "audio/speech", "rerank"];
    match path {
        _ if post && last("/chat/completions") => Endpoint::Chat,
        _ if post && last("/responses") => Endpoint::Responses,
        _ if post && last("/responses/input_tokens") => Endpoint::ResponsesCount,
        _ if post && last("/messages/count_tokens") => Endpoint::Count,
        _ if post && last("/messages") => Endpoint::Messages,
        _ if post && last("/embeddings") => Endpoint::Embeddings,
        _ if post && (last("/audio/transcriptions") || last("/audio/translations")) => {
            Endpoint::Transcription
        }
        _ if post => media
            .into_iter()
            .find(|name| path.ends_with(&format!("/{name}")))
            .map_or(Endpoint::Unknown, Endpoint::Media),
        _ if last("/models") => Endpoint::Models(None),
        _ => match path.rsplit_once('/') {
            Some((before, id)) if before.ends_with("/responses") => Endpoint::Stored(id),
            Some((before, id)) if before.ends_with("/models") => Endpoint::Models(Some(id)),
            _ => Endpoint::Unknown,
        },
    }
}

fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

fn query<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Whose endpoint it is; lists of models are told apart by how one asks.
fn dialect(endpoint: &Endpoint<'_>, parts: &Parts) -> Dialect {
    let asks_gemini = || header(parts, "x-goog-api-key").is_some() || query(parts, "key").is_some();
    match endpoint {
        Endpoint::Messages | Endpoint::Count => Dialect::Anthropic,
        Endpoint::Gemini(..) => Dialect::Gemini,
        Endpoint::Models(_) | Endpoint::Unknown if header(parts, "anthropic-version").is_some() => {
            Dialect::Anthropic
        }
        Endpoint::Models(_) | Endpoint::Unknown if asks_gemini() => Dialect::Gemini,
        _ => Dialect::OpenAi,
    }
}

/// A key that begins with `wrong` is a wrong one; any other is right.
fn authorized(dialect: Dialect, parts: &Parts) -> Checked {
    let bearer = header(parts, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    let status = |status, text: String| Err(Problem { at: String::new(), what: What::Status(status, text) });
    match dialect {
        Dialect::OpenAi => match bearer.or(header(parts, "api-key")) {
            None => status(401, "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from https://platform.openai.com/account/api-keys.".to_owned()),
            Some(key) if key.starts_with("wrong") => status(401, format!("Incorrect API key provided: {key}. You can find your API key at https://platform.openai.com/account/api-keys.")),
            Some(_) => Ok(()),
        },
        Dialect::Anthropic => match header(parts, "x-api-key").or(bearer) {
            None => status(401, "x-api-key header is required".to_owned()),
            Some(key) if key.starts_with("wrong") => status(401, "invalid x-api-key".to_owned()),
            Some(_) if header(parts, "anthropic-version").is_none() => wrong("anthropic-version", "header is required"),
            Some(_) => Ok(()),
        },
        Dialect::Gemini => match header(parts, "x-goog-api-key").or(query(parts, "key")).or(bearer) {
            None => status(403, "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API.".to_owned()),
            Some(key) if key.starts_with("wrong") => status(400, "API key not valid. Please pass a valid API key.".to_owned()),
            Some(_) => Ok(()),
        },
    }
}

impl State {
    /// Answers a request; `None` where the connection is to end without an answer.
    pub(super) async fn reply(
        &self,
        parts: &Parts,
        body: &[u8],
        resets: &Resets,
    ) -> Option<Response<Pieces>> {
        if parts.uri.path() == "/mock/requests" {
            return self.control(parts, resets).await;
        }
        let number = self.record.add(parts, body);
        let (mut script, reply) = self.answer(parts, body);
        let mut retry_after = None;
        let reply = match reply {
            Ok(reply) => reply,
            Err((dialect, problem)) => self.refusal(dialect, &problem, &script),
        };
        if script.status.is_some() || script.html {
            retry_after = script.retry_after.take();
        }
        let html = matches!(reply, Reply::Bytes("text/html; charset=utf-8", _));
        let mut response = deliver(reply, &script, resets, (self.record.clone(), number)).await?;
        if html {
            *response.status_mut() =
                http::StatusCode::from_u16(script.status.unwrap_or(502)).unwrap_or_default();
        }
        self.stamp(parts, response.headers_mut(), retry_after);
        Some(response)
    }

    /// The fields that providers send along.
    fn stamp(&self, parts: &Parts, headers: &mut http::HeaderMap, retry_after: Option<String>) {
        let id = format!("req_mock{}", self.next.load(Ordering::Relaxed));
        let names = ["x-request-id", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"];
        let other =
            ["request-id", "anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining"];
        let names = match dialect(&endpoint(&parts.method, parts.uri.path()), parts) {
            Dialect::OpenAi => &names[..],
            Dialect::Anthropic => &other[..],
            Dialect::Gemini => &[],
        };
        let values = [id.as_str(), "1000", "999"];
        let retry = retry_after.as_deref().map(|value| ("retry-after", value));
        for (name, value) in names.iter().copied().zip(values).chain(retry) {
            if let (Ok(name), Ok(value)) =
                (http::HeaderName::try_from(name), http::HeaderValue::try_from(value))
            {
                headers.insert(name, value);
            }
        }
    }

    async fn control(&self, parts: &Parts, resets: &Resets) -> Option<Response<Pieces>> {
        let requests = self.record.all().iter().map(super::Request::to_json).collect::<Vec<_>>();
        if parts.method == Method::DELETE {
            self.record.clear();
        }
        let reply = Reply::Json(200, json!(requests));
        deliver(reply, &Script::default(), resets, (self.record.clone(), u64::MAX)).await
    }

    pub(super) fn answer(&self, parts: &Parts, body: &[u8]) -> (Script, Result<Reply, (Dialect, Problem)>) {
        let endpoint = endpoint(&parts.method, parts.uri.path());
        let dialect = dialect(&endpoint, parts);
        let mut script = Script::default();
        let reply = self.checked(&endpoint, dialect, parts, body, &mut script);
        (script, reply.map_err(|problem| (dialect, problem)))
    }

    fn checked(
        &self,
        endpoint: &Endpoint<'_>,
        dialect: Dialect,
        parts: &Parts,
        bytes: &[u8],
        script: &mut Script,
    ) -> Checked<Reply> {
        authorized(dialect, parts)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match endpoint {
            Endpoint::Models(one) => return Ok(side::models(dialect, *one)),
            Endpoint::Stored(id) => return self.stored(id).map(|response| Reply::Json(200, response)),
            Endpoint::Transcription => return side::transcription(bytes, script),
            Endpoint::Unknown => {
                let text = format!("Invalid URL ({} {})", parts.method, parts.uri.path());
                return Err(Problem { at: String::new(), what: What::Status(404, text) });
            }
            _ => {}
        }
        let body: Value = match serde_json::from_slice(bytes) {
            Ok(body) => body,
            Err(error) => return wrong("", invalid(dialect, &error.to_string())),
        };
        match endpoint {
            Endpoint::Chat => {
                let (asked, extra) = chat::read(&body)?;
                let said = self.play(&asked, script, number)?;
                Ok(chat_reply::write(&asked, &extra, &said, script, number))
            }
            Endpoint::Responses => {
                let (asked, extra) =
                    responses::read(&body, &|id| self.stored(id).ok().map(|response| open_calls(&response)))?;
                let said = self.play(&asked, script, number)?;
                let (response, reply) = responses::write(&asked, &extra, &said, script, number);
                if extra.store {
                    self.store(response);
                }
                Ok(reply)
            }
            Endpoint::Messages => {
                let asked = anthropic::read(&body, false)?;
                let said = self.play(&asked, script, number)?;
                Ok(anthropic_reply::write(&asked, &said, script, number))
            }
            Endpoint::Count => {
                let asked = anthropic::read(&body, true)?;
                *script = Script::read(&asked.model, &asked.last).or_else(|text| wrong("", text))?;
                self.fail(script)?;
                Ok(Reply::Json(200, json!({"input_tokens": asked.words.max(1)})))
            }
            Endpoint::ResponsesCount => {
                let (asked, _) = responses::read(&body, &|_| None)?;
                *script = Script::read(&asked.model, &asked.last).or_else(|text| wrong("", text))?;
                self.fail(script)?;
                let count = asked.words.max(1);
                Ok(Reply::Json(200, json!({"object": "response.input_tokens", "input_tokens": count})))
            }
            Endpoint::Gemini(model, verb) => {
                let events = query(parts, "alt") == Some("sse");
                self.gemini((model, verb), events, &body, script, number)
            }
            Endpoint::Embeddings => {
                let text =
                    body["input"].as_str().or_else(|| body["input"].get(0)?.as_str()).unwrap_or_default();
                *script = Script::read(body["model"].as_str().unwrap_or_default(), text)
                    .or_else(|text| wrong("", text))?;
                self.fail(script)?;
                side::embeddings(&body)
            }
            Endpoint::Media(kind) => side::media(kind, &body),
            _ => wrong("", "nothing answers here"),
        }
    }

    fn gemini(
        &self,
        (model, verb): (&str, &str),
        events: bool,
        body: &Value,
        script: &mut Script,
        number: u64,
    ) -> Checked<Reply> {
        match verb {
            "generateContent" | "streamGenerateContent" => {
                let (mut asked, extra) = gemini::read(body, model)?;
                asked.stream = verb == "streamGenerateContent";
                let said = self.play(&asked, script, number)?;
                Ok(gemini_reply::write(&asked, &extra, &said, script, number, events))
            }
            "countTokens" => {
                let inner = body
                    .get("generateContentRequest")
                    .or(body.get("generate_content_request"))
                    .unwrap_or(body);
                let (asked, _) = gemini::read(inner, model)?;
                let count = asked.words.max(1);
                Ok(Reply::Json(
                    200,
                    json!({"totalTokens": count, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": count}]}),
                ))
            }
            "embedContent" => side::gemini_embeddings(body, false),
            "batchEmbedContents" => side::gemini_embeddings(body, true),
            _ => Err(Problem {
                at: String::new(),
                what: What::Status(
                    404,
                    format!(
                        "models/{model} is not found for API version v1beta, or is not supported for {verb}."
                    ),
                ),
            }),
        }
    }

    /// Reads the script and answers by it.
    fn play(&self, asked: &Asked, script: &mut Script, number: u64) -> Checked<super::answer::Said> {
        *script = Script::read(&asked.model, &asked.last).or_else(|text| wrong("", text))?;
        self.fail(script)?;
        answer(asked, script, number)
    }

    /// Fails where the script says so, and stops failing where it has done so often enough.
    fn fail(&self, script: &mut Script) -> Checked {
        if let Some(times) = script.times {
            let mut plays = lock(&self.plays);
            let at = plays.iter().position(|(source, _)| *source == script.source).unwrap_or_else(|| {
                plays.push_back((script.source.clone(), 0));
                plays.len() - 1
            });
            plays[at].1 += 1;
            let is_over = plays[at].1 > times;
            if plays.len() > KEPT {
                plays.pop_front();
            }
            if is_over {
                *script = Script { words: script.words, say: script.say.take(), ..Script::default() };
                return Ok(());
            }
        }
        if script.status.is_none() && !script.html {
            return Ok(());
        }
        let status = script.status.unwrap_or(502);
        Err(Problem {
            at: String::new(),
            what: What::Status(status, format!("The mock answers {status}, as it was told")),
        })
    }

    fn refusal(&self, dialect: Dialect, problem: &Problem, script: &Script) -> Reply {
        if script.html {
            let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
            return Reply::Bytes("text/html; charset=utf-8", page.into());
        }
        let (status, mut value) = match dialect {
            Dialect::OpenAi => chat_reply::problem(problem),
            Dialect::Anthropic => anthropic_reply::problem(problem, self.next.load(Ordering::Relaxed)),
            Dialect::Gemini => gemini_reply::problem(problem),
        };
        if script.int_code && dialect == Dialect::OpenAi {
            value["error"]["code"] = json!(status);
        }
        if script.errors_array && dialect == Dialect::Gemini {
            value = json!([value]);
        }
        Reply::Json(status, value)
    }

    fn stored(&self, id: &str) -> Checked<Value> {
        let responses = lock(&self.responses);
        let found = responses.iter().find(|(known, _)| known == id).map(|(_, response)| response.clone());
        found.ok_or_else(|| Problem {
            at: String::new(),
            what: What::Status(404, format!("Response with id '{id}' not found.")),
        })
    }

    fn store(&self, response: Value) {
        let mut responses = lock(&self.responses);
        responses.push_back((response["id"].as_str().unwrap_or_default().to_owned(), response));
        if responses.len() > KEPT {
            responses.pop_front();
        }
    }
}

fn invalid(dialect: Dialect, error: &str) -> String {
    match dialect {
        Dialect::OpenAi => "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)".to_owned(),
        Dialect::Anthropic => format!("The request body is not valid JSON: {error}"),
        Dialect::Gemini => format!("Invalid JSON payload received. {error}"),
    }
}

/// The calls of a stored response, which the next request has to answer.
fn open_calls(response: &Value) -> Vec<String> {
    let items = response["output"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|item| item["call_id"].as_str().map(str::to_owned)).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
