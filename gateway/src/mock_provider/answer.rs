//! What a request asks and what the model says to it, in no dialect: dialects read the one and write the other.

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::checks::{Checked, wrong};
use super::schema;
use super::script::Script;

/// Words of the model, in turn; the second list has characters of two, three and four bytes.
const WORDS: [&str; 10] =
    ["the", "gateway", "reads", "each", "event", "once", "and", "keeps", "its", "order"];
const WIDE: [&str; 6] = ["größe", "東京", "🌍🚀", "naïve", "данные", "𝒳é"];

/// What a request asks, as far as the answer depends on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) system: String,
    /// `user`, `assistant` and `tool`, in order.
    pub(super) turns: Vec<&'static str>,
    /// The last text of the user.
    pub(super) last: String,
    /// The results of tools since then.
    pub(super) results: Vec<String>,
    pub(super) tools: Vec<Tool>,
    pub(super) choice: Choice,
    /// At most one call.
    pub(super) one_call: bool,
    /// The schema that the answer has to fit; null for any JSON.
    pub(super) schema: Option<Value>,
    /// Images, documents and sounds: media type and bytes, or the URL.
    pub(super) media: Vec<String>,
    pub(super) max_tokens: Option<u64>,
    pub(super) stops: Vec<String>,
    pub(super) stream: bool,
    /// Whether the request lets the model reason, and wants to see it.
    pub(super) thinking: bool,
    pub(super) shows_thinking: bool,
    /// Sampling parameters and the like, for `echo`.
    pub(super) settings: Vec<(&'static str, Value)>,
    /// Words of all texts.
    pub(super) words: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Choice {
    #[default]
    Auto,
    Never,
    Any,
    Named(String),
}

#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) schema: Value,
    /// Takes text, not JSON (Responses).
    pub(super) free: bool,
}

impl Asked {
    /// Takes a text of the user in.
    pub(super) fn hear(&mut self, text: &str) {
        self.count(text);
        text.clone_into(&mut self.last);
        self.results.clear();
    }

    pub(super) fn count(&mut self, text: &str) {
        self.words += text.split_whitespace().count() as u64;
    }

    pub(super) fn instruct(&mut self, text: &str) {
        self.count(text);
        if !self.system.is_empty() {
            self.system.push('\n');
        }
        self.system.push_str(text);
    }

    pub(super) fn result(&mut self, text: &str) {
        self.count(text);
        self.results.push(text.to_owned());
    }

    pub(super) fn set(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        self.settings.extend(value.map(|value| (name, value.into())));
    }

    fn echo(&self) -> String {
        let tools: Vec<_> =
            self.tools.iter().map(|tool| json!({"name": tool.name, "schema": tool.schema})).collect();
        let settings: serde_json::Map<_, _> =
            self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let choice = match &self.choice {
            Choice::Auto => "auto",
            Choice::Never => "none",
            Choice::Any => "any",
            Choice::Named(name) => name,
        };
        json!({"system": self.system, "turns": self.turns, "media": self.media, "tools": tools, "choice": choice,
            "one_call": self.one_call, "stops": self.stops, "max_tokens": self.max_tokens, "settings": settings,
            "thinking": self.thinking, "schema": self.schema})
        .to_string()
    }
}

/// What the model says.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) thinking: Option<String>,
    pub(super) text: Option<String>,
    pub(super) refusal: Option<String>,
    pub(super) calls: Vec<Call>,
    pub(super) end: End,
    pub(super) usage: Usage,
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    /// JSON, or the text of a tool that takes text.
    pub(super) arguments: String,
    pub(super) free: bool,
}

impl Call {
    /// The arguments as an object, for dialects that have them so.
    pub(super) fn object(&self) -> Value {
        serde_json::from_str(&self.arguments).unwrap_or_else(|_| json!({}))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    Stop,
    Calls,
    Length,
    Filter,
    Refusal,
    Sequence(String),
}

/// Tokens; a word is one. `input` has all of them, cached ones too: dialects that count these apart subtract them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) cached: u64,
    pub(super) written: u64,
    pub(super) output: u64,
    pub(super) reasoning: u64,
}

/// The answer to a request under its script; `number` keeps ids apart.
pub(super) fn answer(asked: &Asked, script: &Script, number: u64) -> Checked<Said> {
    let mut said = Said::default();
    let names = called(asked, script)?;
    if asked.thinking || script.reasoning_content {
        said.thinking = script.thinking.map(|count| text_of(count, script.unicode));
    }
    for (index, tool) in names.into_iter().enumerate() {
        said.calls.push(call(tool, script, number, index));
    }
    if !said.calls.is_empty() {
        said.end = End::Calls;
        said.text = script.say.clone();
    } else if script.refusal {
        said.end = End::Refusal;
        said.refusal = Some("I cannot help with that.".to_owned());
    } else if script.filter {
        said.end = End::Filter;
    } else {
        (said.text, said.end) = bounded(said_text(asked, script), asked, script);
    }
    said.usage = usage(asked, script, &said);
    Ok(said)
}

/// The tools that the answer calls. What the tools said to such a call is answered with a text, or clients that send
/// results back would go on for ever.
fn called<'a>(asked: &'a Asked, script: &Script) -> Checked<Vec<&'a Tool>> {
    let find = |name: &String| asked.tools.iter().find(|tool| tool.name == *name);
    if !asked.results.is_empty() || asked.choice == Choice::Never {
        return Ok(Vec::new());
    }
    let mut tools = Vec::new();
    for name in &script.tool {
        match find(name) {
            Some(tool) => tools.push(tool),
            None => {
                return wrong(
                    "tools",
                    format!("the script names the tool {name:?}, which the request lacks"),
                );
            }
        }
    }
    match &asked.choice {
        Choice::Named(name) => tools = find(name).into_iter().collect(),
        Choice::Any if tools.is_empty() => tools.extend(asked.tools.first()),
        _ => {}
    }
    if asked.one_call {
        tools.truncate(1);
    }
    Ok(tools)
}

fn call(tool: &Tool, script: &Script, number: u64, index: usize) -> Call {
    let arguments = match &script.args {
        _ if script.empty_args => String::new(),
        Some(arguments) => arguments.clone(),
        None if tool.free => "*** Begin Patch\n*** End Patch\n".to_owned(),
        None => schema::example(&tool.schema, &tool.schema, script.unicode, 0).to_string(),
    };
    Call { id: format!("{number}x{index}"), name: tool.name.clone(), arguments, free: tool.free }
}

fn said_text(asked: &Asked, script: &Script) -> String {
    if script.echo {
        return asked.echo();
    }
    if let Some(text) = &script.say {
        return text.clone();
    }
    if !asked.results.is_empty() {
        return format!("The tools said: {}", asked.results.join("; "));
    }
    match &asked.schema {
        Some(Value::Null) => json!({"city": "Paris"}).to_string(),
        Some(schema) => schema::example(schema, schema, script.unicode, 0).to_string(),
        None => text_of(script.words.unwrap_or(8), script.unicode),
    }
}

/// Cuts a text where a stop sequence or the limit of tokens ends it.
fn bounded(mut text: String, asked: &Asked, script: &Script) -> (Option<String>, End) {
    if script.echo {
        return (Some(text), End::Stop); // What was asked names the stop sequences.
    }
    let stops = asked.stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop)));
    if let Some((at, stop)) = stops.min() {
        text.truncate(at);
        return (Some(text), End::Sequence(stop.clone()));
    }
    let most = asked.max_tokens.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let too_long = asked.schema.is_none() && text.split_whitespace().count() > most;
    if too_long {
        text = text.split_inclusive(' ').take(most).collect();
    }
    (Some(text), if too_long || script.length { End::Length } else { End::Stop })
}

fn usage(asked: &Asked, script: &Script, said: &Said) -> Usage {
    let count = |text: &Option<String>| text.as_deref().unwrap_or_default().split_whitespace().count() as u64;
    let reasoning = count(&said.thinking) + script.reasoning as u64;
    let calls: u64 = said.calls.iter().map(|call| 1 + call.arguments.split(',').count() as u64).sum();
    let (cached, written) = (script.cached as u64, script.written as u64);
    Usage {
        input: asked.words.max(1) + cached + written,
        cached,
        written,
        output: count(&said.text) + count(&said.refusal) + calls + reasoning,
        reasoning,
    }
}

/// A text of so many words, the same each time.
pub(super) fn text_of(count: usize, unicode: bool) -> String {
    let list: &[&str] = if unicode { &WIDE } else { &WORDS };
    let words = list.iter().cycle().take(count).copied();
    words.collect::<Vec<_>>().join(" ")
}

/// A text in the pieces that a stream sends: words with the spaces before them.
pub(super) fn words(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, _) in text.char_indices().filter(|(at, letter)| *letter == ' ' && *at > 0) {
        pieces.push(&text[start..at]);
        start = at;
    }
    pieces.push(&text[start..]);
    pieces
}

/// JSON in the pieces that a stream sends, which respect neither tokens nor escapes.
pub(super) fn shreds(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(5).map(|chunk| chunk.iter().collect()).collect()
}

/// What proves that a block is the mock's own: clients have to send it back as it was.
pub(super) fn signature(of: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(format!("the mock said {of}")))
}

/// Media type and length of data in base64, as `echo` shows them; `None` where it is no base64.
pub(super) fn media(kind: &str, data: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    Some(format!("{kind}:{}", bytes.len()))
}

/// The same of a `data:` URL; any other URL as it is.
pub(super) fn media_url(url: &str) -> Option<String> {
    match url.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,").and_then(|(kind, data)| media(kind, data)),
        None => (url.starts_with("https://") || url.starts_with("http://")).then(|| url.to_owned()),
    }
}
