//! `gateway translate`: what becomes of a body in another dialect, and what of it is lost, without sending anything.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use clap::builder::PossibleValuesParser;
use gateway_llm::dialect::{Asked, Call, Dialect};
use gateway_llm::frames::{Frames, Framing};
use gateway_llm::invalid::Invalid;
use gateway_llm::json::Reader;
use gateway_llm::loss::{Loss, Losses};
use gateway_llm::models::Models;
use gateway_llm::neutral::End;
use gateway_llm::target::{Quirks, Target};

use super::failure::{Failure, Outcome};
use super::output::{Column, Out, clean};

/// A body may be so large: what a route takes at most.
const MAX_BODY: u64 = 64 << 20;

/// How Gemini's paths say that an answer is streamed.
const STREAMED: &str = ":streamGenerateContent";

/// What to translate.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("kind"))]
pub struct Arguments {
    /// The dialect that it is in
    #[arg(long, value_name = "DIALECT", value_parser = dialects())]
    from: String,
    /// The dialect that it shall be in
    #[arg(long, value_name = "DIALECT", value_parser = dialects())]
    to: String,
    /// The model that a request is for, as the provider calls it, or that an answer is from, as the client calls it; without
    /// it, what the body says. Gemini says it in the path: behind it, `:streamGenerateContent` says that the answer is streamed
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// How the server differs from OpenAI's own that a request in openai_chat is for
    #[arg(long, value_name = "NAME", default_value = "openai", value_parser = quirks)]
    quirks: Quirks,
    /// It is a provider's reply, not a client's request
    #[arg(long, group = "kind")]
    reply: bool,
    /// It is a provider's stream: server-sent events, or Gemini's array
    #[arg(long, group = "kind")]
    stream: bool,
    /// It is a provider's error, with this status
    #[arg(long, group = "kind", value_name = "STATUS", value_parser = clap::value_parser!(u16).range(100..=599))]
    error: Option<u16>,
    /// Show what is lost and nothing else; exits 1 if anything is
    #[arg(long)]
    losses_only: bool,
    /// Print JSON: the body, and what is lost
    #[arg(long)]
    json: bool,
    /// The file that the body is in; `-` is the standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

fn dialects() -> PossibleValuesParser {
    PossibleValuesParser::new(Dialect::ALL.map(Dialect::name))
}

fn quirks(name: &str) -> Result<Quirks, String> {
    Quirks::named(name).ok_or_else(|| "no server of this name is known".to_owned())
}

/// A body in another dialect.
#[derive(Debug)]
struct Translated {
    body: String,
    losses: Losses,
    /// Of an error.
    status: Option<u16>,
}

pub(super) fn run(arguments: &Arguments, out: &mut Out) -> Outcome {
    let body = read(arguments)?;
    let translated = translate(arguments, &body).map_err(|invalid| Failure::Wrong(invalid.to_string()))?;
    let losses = &translated.losses;
    if arguments.json {
        out.json(&document(arguments, &translated))?;
    } else if arguments.losses_only {
        let row = |loss: &Loss| vec![loss.what.to_string(), clean(&loss.at)];
        let rows: Vec<Vec<String>> = losses.kept().iter().map(row).collect();
        out.table(&[Column::words("LOST"), Column::words("WHERE")], &rows)?;
    } else {
        out.text(&translated.body)?;
        if !translated.body.ends_with('\n') {
            out.text("\n")?;
        }
        out.flush()?;
        tell(&translated);
    }
    if arguments.losses_only && !losses.is_empty() { Err(Failure::No) } else { Ok(()) }
}

/// Remarks, beside the body.
fn tell(translated: &Translated) {
    let Translated { body: _, losses, status } = translated;
    if let Some(status) = status {
        eprintln!("status {status}");
    }
    losses.kept().iter().for_each(|loss| eprintln!("lost: {} {}", loss.what, clean(&loss.at)));
    if losses.count() > losses.kept().len() {
        eprintln!("lost: {} more", losses.count() - losses.kept().len());
    }
}

fn document(arguments: &Arguments, translated: &Translated) -> serde_json::Value {
    let losses = translated.losses.kept().iter();
    let losses: Vec<serde_json::Value> =
        losses.map(|loss| serde_json::json!({"what": loss.what.label(), "at": loss.at})).collect();
    let mut document = serde_json::json!({"losses": losses, "losses_in_all": translated.losses.count()});
    if let Some(status) = translated.status {
        document["status"] = status.into();
    }
    if !arguments.losses_only {
        // As text, whether it is JSON or a stream: so it is what is sent, byte for byte.
        document["body"] = translated.body.as_str().into();
    }
    document
}

fn read(arguments: &Arguments) -> Outcome<Vec<u8>> {
    let path = &arguments.file;
    let mut body = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_BODY + 1).read_to_end(&mut body)
    } else {
        File::open(path).and_then(|file| file.take(MAX_BODY + 1).read_to_end(&mut body))
    };
    match read {
        Ok(_) if body.len() as u64 > MAX_BODY => {
            Err(Failure::Wrong(format!("{}: it has more than {MAX_BODY} bytes", path.display())))
        }
        Ok(_) => Ok(body),
        Err(error) => Err(Failure::Wrong(format!("cannot read {}: {error}", path.display()))),
    }
}

fn translate(arguments: &Arguments, body: &[u8]) -> Result<Translated, Invalid> {
    // The parser has seen to it that there are such dialects.
    let dialect = |name: &str| Dialect::from_name(name).unwrap_or(Dialect::OpenaiChat);
    let (from, to) = (dialect(&arguments.from), dialect(&arguments.to));
    let (bytes, losses, status) = if let Some(status) = arguments.error {
        let failure = from.decode_failure(status, body);
        (to.encode_failure(&failure), Losses::default(), Some(failure.status))
    } else if arguments.stream {
        let (bytes, losses) = stream(arguments, from, to, body);
        (bytes, losses, None)
    } else {
        let one = if arguments.reply { reply } else { request };
        let (bytes, losses) = one(arguments, from, to, body)?;
        (bytes, losses, None)
    };
    Ok(Translated { body: String::from_utf8_lossy(&bytes).into_owned(), losses, status })
}

fn request(
    arguments: &Arguments,
    from: Dialect,
    to: Dialect,
    body: &[u8],
) -> Result<(Vec<u8>, Losses), Invalid> {
    let said = arguments.model.as_deref();
    let (model, stream) = match said.and_then(|model| model.strip_suffix(STREAMED)) {
        Some(model) => (Some(model), true),
        None => (said, false),
    };
    let mut reader = Reader::default();
    let request = from.decode_request(body, &Call { model, stream }, &mut reader)?;
    let mut target = Target::new(model.unwrap_or(&request.model));
    target.model_facts = Models::embedded().find(target.model).map(|model| model.facts()).unwrap_or_default();
    target.quirks = arguments.quirks;
    let mut losses = reader.losses;
    let bytes = to.encode_request(&request, &target, &mut losses)?;
    Ok((bytes, losses))
}

fn reply(
    arguments: &Arguments,
    from: Dialect,
    to: Dialect,
    body: &[u8],
) -> Result<(Vec<u8>, Losses), Invalid> {
    let mut reader = Reader::default();
    let reply = from.decode_reply(body, &mut reader)?;
    let mut losses = reader.losses;
    let bytes = to.encode_reply(&reply, &asked(arguments, &reply.model), &mut losses);
    Ok((bytes, losses))
}

fn stream(arguments: &Arguments, from: Dialect, to: Dialect, body: &[u8]) -> (Vec<u8>, Losses) {
    let is_array = from == Dialect::Gemini && body.trim_ascii_start().starts_with(b"[");
    let mut frames = Frames::new(if is_array { Framing::Items } else { Framing::Events });
    let mut decoder = from.stream_decoder();
    let mut encoder = to.stream_encoder(asked(arguments, ""));
    let mut bytes = Vec::new();
    let fed = frames.feed(body, |frame| decoder.step(&frame, &mut |event| encoder.step(&event, &mut bytes)));
    let ended = frames.finish(|frame| decoder.step(&frame, &mut |event| encoder.step(&event, &mut bytes)));
    let end = if fed.and(ended).is_ok() && frames.is_complete() { End::Complete } else { End::Broken };
    decoder.finish(end, &mut |event| encoder.step(&event, &mut bytes));
    let mut losses = std::mem::take(decoder.losses());
    losses.append(std::mem::take(encoder.losses()));
    (bytes, losses)
}

/// What a client would have asked that gets this answer.
fn asked(arguments: &Arguments, model: &str) -> Asked {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let model = arguments.model.clone().unwrap_or_else(|| model.to_owned());
    Asked { model, stream_usage: true, framing: Framing::Events, now, echo: Vec::new() }
}
