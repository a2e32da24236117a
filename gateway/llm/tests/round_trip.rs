//! What is written can be read, and nothing of it vanishes in silence.
//!
//! An arbitrary request is written in a dialect and read again. Each text of it is a mark that must be there again, or a
//! loss of its kind must have been noted; numbers and choices are compared field by field in the same way. So an encoder
//! that forgets a field fails here, and so does a decoder. Replies and streams alike.

mod draw;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use draw::Draw;
use gateway_llm::dialect::{Asked, Call, Dialect};
use gateway_llm::fold::{Fold, unfold};
use gateway_llm::frames::{Frames, Framing};
use gateway_llm::json::Reader;
use gateway_llm::loss::{Losses, MAX_KEPT, What};
use gateway_llm::neutral::{
    End, Finish, Format, Part, PartKind, Reply, Request, Role, Tool, ToolChoice, ToolKind,
};
use gateway_llm::order::Order;
use gateway_llm::target::Target;
use proptest::prelude::*;

/// What is wrong with a translation, all of it.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    /// What was said is what was read, or its loss was noted.
    fn same<T: PartialEq + std::fmt::Debug>(
        &mut self,
        name: &str,
        said: &T,
        read: &T,
        losses: &Losses,
        may_be: &[What],
    ) {
        if said != read && !may_be.iter().any(|what| losses.has(*what)) {
            self.0.push(format!("{name} was {said:?} and is {read:?}, and none of {may_be:?} is lost"));
        }
    }

    /// The same, where something was said: dialects may have defaults.
    fn kept<T: PartialEq + std::fmt::Debug>(
        &mut self,
        name: &str,
        said: &Option<T>,
        read: &Option<T>,
        losses: &Losses,
        may_be: &[What],
    ) {
        if said.is_some() {
            self.same(name, said, read, losses, may_be);
        }
    }

    fn check(self, context: impl FnOnce() -> String) -> Result<(), TestCaseError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(TestCaseError::fail(format!("{}\n{}", self.0.join("\n"), context())))
        }
    }
}

/// More losses than are kept word for word say nothing about kinds.
fn are_all_kept(losses: &Losses) -> bool {
    losses.count() <= MAX_KEPT
}

fn request(bytes: &[u8], dialect: Dialect) -> Result<(), TestCaseError> {
    let mut draw = Draw::new(bytes, dialect);
    let said = draw.request();
    let mut losses = Losses::default();
    let written = match dialect.encode_request(&said, &Target::new(&said.model), &mut losses) {
        Ok(written) => written,
        Err(refused) => return Err(TestCaseError::reject(refused.to_string())),
    };
    if !are_all_kept(&losses) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&written).into_owned();
    let mut reader = Reader::default();
    let call = Call { model: Some(&said.model), stream: said.stream };
    let read = dialect.decode_request(&written, &call, &mut reader);
    let read = read.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
    let mut faults = Faults::default();
    let debug = format!("{read:?}");
    faults.0.extend(draw.marks.iter().filter_map(|mark| mark.vanished(&text, &debug, &losses)));
    unread(&reader.losses, &mut faults);
    compare_requests(dialect, &said, &read, &losses, &mut faults);
    in_order(&said, &debug, &mut faults);
    let lost: Vec<String> = losses.kept().iter().map(|loss| format!("{} {}", loss.what, loss.at)).collect();
    faults.check(|| format!("{dialect} wrote {text}\nlost {lost:?}\nof {said:#?}"))
}

/// What a dialect writes, it can read: but for what is native to it and made up here.
fn unread(losses: &Losses, faults: &mut Faults) {
    for loss in losses.kept().iter().filter(|loss| !loss.at.contains("native_mk")) {
        // Signatures are the client's to give back: what they become in its requests is looked at there.
        if !matches!(loss.what, What::UnknownPart | What::ProviderTool | What::Signature) {
            faults.0.push(format!("its own {} at {} is lost when it is read", loss.what, loss.at));
        }
    }
}

/// OpenAI's usual tier is `default`, Anthropic's is `standard`, or `standard_only` in requests.
fn tier<'t>(tier: &'t Option<Cow<'_, str>>) -> Option<&'t str> {
    tier.as_deref().map(|tier| if matches!(tier, "standard" | "standard_only") { "default" } else { tier })
}

fn compare_requests(
    dialect: Dialect,
    said: &Request<'_>,
    read: &Request<'_>,
    losses: &Losses,
    faults: &mut Faults,
) {
    faults.same("model", &said.model, &read.model, losses, &[]);
    faults.same("stream", &said.stream, &read.stream, losses, &[]);
    compare_choices(said, read, losses, faults);
    let parallel = |parallel: Option<bool>| parallel.filter(|parallel| !parallel);
    let may_be = &[What::ParallelToolCalls, What::CustomTool, What::ProviderTool];
    faults.kept(
        "parallel_tool_calls",
        &parallel(said.parallel_tool_calls),
        &parallel(read.parallel_tool_calls),
        losses,
        may_be,
    );
    faults.kept(
        "max_output_tokens",
        &said.max_output_tokens,
        &read.max_output_tokens,
        losses,
        &[What::OutputLimit],
    );
    let several = |count: Option<u64>| count.filter(|count| *count > 1);
    faults.kept(
        "candidates",
        &several(said.candidates),
        &several(read.candidates),
        losses,
        &[What::Candidates],
    );
    faults.kept("verbosity", &said.verbosity, &read.verbosity, losses, &[What::Verbosity]);
    faults.kept(
        "service_tier",
        &tier(&said.service_tier),
        &tier(&read.service_tier),
        losses,
        &[What::ServiceTier],
    );
    // Who never keeps an answer need not be told.
    let keeps = matches!(dialect, Dialect::OpenaiChat | Dialect::OpenaiResponses);
    faults.kept("store", &said.store.filter(|store| *store || keeps), &read.store, losses, &[What::Stored]);
    let kind = |format: &Option<Format<'_>>| match format {
        None | Some(Format::Text) => None,
        Some(Format::Json) => Some("json"),
        Some(Format::Schema { .. }) => Some("schema"),
    };
    faults.kept("format", &kind(&said.format), &kind(&read.format), losses, &[What::OutputFormat]);
    let (one, other) = (&said.sampling, &read.sampling);
    let sampling = &[What::Sampling];
    // 1 is what holds where nothing is said.
    let unusual = |number: &Option<gateway_llm::json::Number<'_>>| {
        number.as_ref().filter(|number| number.as_f64() != 1.0).map(|number| number.text().to_owned())
    };
    let (temperature, top_p) = (unusual(&one.temperature), unusual(&one.top_p));
    faults.kept("temperature", &temperature, &unusual(&other.temperature), losses, sampling);
    faults.kept("top_p", &top_p, &unusual(&other.top_p), losses, sampling);
    faults.kept("top_k", &one.top_k, &other.top_k, losses, sampling);
    faults.kept("presence_penalty", &one.presence_penalty, &other.presence_penalty, losses, sampling);
    faults.kept("frequency_penalty", &one.frequency_penalty, &other.frequency_penalty, losses, sampling);
    faults.kept("seed", &one.seed, &other.seed, losses, &[What::Seed]);
    faults.kept("logit_bias", &one.logit_bias, &other.logit_bias, losses, sampling);
    let may_be = &[What::LogProbabilities];
    faults.kept(
        "log_probabilities",
        &one.log_probabilities.map(|_| ()),
        &other.log_probabilities.map(|_| ()),
        losses,
        may_be,
    );
    let thinks = |request: &Request<'_>| {
        let reasoning = request.reasoning.as_ref()?;
        Some(reasoning.enabled != Some(false) && reasoning.effort.as_deref() != Some("none"))
    };
    faults.kept("reasoning", &thinks(said), &thinks(read), losses, &[What::Reasoning]);
    faults.same(
        "tools",
        &said.tools.len(),
        &read.tools.len(),
        losses,
        &[What::CustomTool, What::ProviderTool],
    );
    // What is lost takes its mark with it.
    let marks = |request: &Request<'_>| {
        let parts = request.turns.iter().flat_map(|turn| &turn.parts);
        let is_marked =
            |part: &&Part<'_>| part.state.cache.is_some() && matches!(part.kind, PartKind::Text { .. });
        let tools = request.tools.iter().filter(|tool| matches!(tool.kind, ToolKind::Function { .. }));
        parts.filter(is_marked).count()
            + tools.filter(|tool| tool.cache.is_some()).count()
            + usize::from(request.cache.is_some())
    };
    let is_kept = marks(read) >= marks(said);
    faults.same("cache marks", &true, &is_kept, losses, &[What::CacheControl]);
    let failed = |request: &Request<'_>| {
        let is_failed =
            |part: &&Part<'_>| matches!(part.kind, PartKind::ToolResult { is_error: Some(true), .. });
        request.turns.iter().flat_map(|turn| &turn.parts).filter(is_failed).count()
    };
    faults.same("failed results", &failed(said), &failed(read), losses, &[What::ToolError]);
    let details = |request: &Request<'_>| {
        let has = |part: &&Part<'_>| {
            matches!(&part.kind, PartKind::Image { detail: Some(detail), .. } if *detail != "auto")
                || matches!(part.kind, PartKind::Document { cite: Some(true), .. })
        };
        request.turns.iter().flat_map(|turn| &turn.parts).filter(has).count()
    };
    let may_be = &[What::PartDetail, What::Image, What::Document, What::Citation];
    faults.same("details of parts", &details(said), &details(read), losses, may_be);
}

fn compare_choices(said: &Request<'_>, read: &Request<'_>, losses: &Losses, faults: &mut Faults) {
    // What is the default everywhere may be left out. To allow some tools is to have none but these, too.
    let choice = |request: &Request<'_>| match request.tool_choice.clone()? {
        ToolChoice::Auto | ToolChoice::Allowed { required: false, .. } => None,
        // One of one is that one.
        ToolChoice::Allowed { required: true, names } if names.len() == 1 => {
            Some(format!("{:?}", ToolChoice::Named(names[0].clone())))
        }
        ToolChoice::Required | ToolChoice::Allowed { required: true, .. } => Some("required".to_owned()),
        other => Some(format!("{other:?}")),
    };
    // Without the tools there is nothing to choose.
    let may_be = &[What::ToolChoice, What::CustomTool, What::ProviderTool];
    faults.kept("tool_choice", &choice(said), &choice(read), losses, may_be);
    if let Some(ToolChoice::Allowed { names, .. }) = &said.tool_choice
        && !matches!(read.tool_choice, Some(ToolChoice::Allowed { .. }))
    {
        let is_allowed = |tool: &Tool<'_>| match &tool.kind {
            ToolKind::Function { name, .. } => names.contains(name),
            _ => false,
        };
        faults.same("only what is allowed", &true, &read.tools.iter().all(is_allowed), losses, may_be);
    }
}

/// What was said in the conversation is in the order in which it was said. Instructions may be moved to its beginning.
fn in_order(said: &Request<'_>, read: &str, faults: &mut Faults) {
    let turns = said.turns.iter().filter(|turn| !matches!(turn.role, Role::System | Role::Developer));
    let texts = turns.flat_map(|turn| &turn.parts).filter_map(|part| match &part.kind {
        PartKind::Text { text, .. } => Some(text),
        _ => None,
    });
    let places: Vec<usize> = texts.filter_map(|text| read.find(&**text)).collect();
    if !places.is_sorted() {
        faults.0.push("texts are out of order".to_owned());
    }
}

fn asked() -> Asked {
    Asked {
        model: "asked-model".to_owned(),
        stream_usage: true,
        framing: Framing::Events,
        now: 1_800_000_000,
        echo: Vec::new(),
    }
}

fn reply(bytes: &[u8], dialect: Dialect) -> Result<(), TestCaseError> {
    let mut draw = Draw::new(bytes, dialect);
    let said = draw.reply();
    let mut losses = Losses::default();
    let written = dialect.encode_reply(&said, &asked(), &mut losses);
    let text = String::from_utf8_lossy(&written).into_owned();
    let mut reader = Reader::default();
    let read = dialect.decode_reply(&written, &mut reader);
    let read = read.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
    check_reply(&draw, &said, &read, &text, &losses, &reader.losses)
}

fn stream(bytes: &[u8], dialect: Dialect) -> Result<(), TestCaseError> {
    let mut draw = Draw::new(bytes, dialect);
    let said = draw.reply();
    let mut encoder = dialect.stream_encoder(asked());
    let mut written = Vec::new();
    unfold(&said, &mut |event| encoder.step(&event, &mut written));
    let losses = std::mem::take(encoder.losses());
    let text = String::from_utf8_lossy(&written).into_owned();
    let mut decoder = dialect.stream_decoder();
    let (mut fold, mut order, mut fault) = (Fold::default(), Order::default(), None);
    let mut say = |event: gateway_llm::neutral::Event<'_>| {
        if let Err(why) = order.step(&event) {
            fault.get_or_insert(why);
        }
        fold.step(&event);
    };
    let mut frames = Frames::new(Framing::Events);
    let fed = frames.feed(&written, |frame| decoder.step(&frame, &mut say));
    fed.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
    prop_assert!(frames.is_complete(), "half an event was written: {}", text);
    decoder.finish(End::Complete, &mut say);
    let unread = std::mem::take(decoder.losses());
    prop_assert_eq!(fault.or(order.finish().err()), None, "{}", text);
    let read = fold.finish().map_err(|failure| TestCaseError::fail(format!("{failure:?}\n{text}")))?;
    check_reply(&draw, &said, &read, &text, &losses, &unread)
}

/// A text, and behind it what signatures say that travel as bytes: Gemini's field is in base64.
fn with_bytes(text: &str) -> String {
    let mut all = text.to_owned();
    for (at, _) in text.match_indices("Z3cxL") {
        let end = text[at..].find('"').map_or(text.len(), |length| at + length);
        let bytes = STANDARD.decode(&text[at..end]).expect("what begins like a packed signature is base64");
        all.push_str(&String::from_utf8_lossy(&bytes));
    }
    all
}

fn check_reply(
    draw: &Draw<'_>,
    said: &Reply<'_>,
    read: &Reply<'_>,
    text: &str,
    losses: &Losses,
    reader: &Losses,
) -> Result<(), TestCaseError> {
    if !are_all_kept(losses) {
        return Ok(());
    }
    let dialect = draw.dialect;
    let mut faults = Faults::default();
    let debug = format!("{read:?}");
    let mut marks = draw.marks.clone();
    // What a client is to give back is not read as an answer.
    let signatures = marks.iter_mut().filter(|mark| mark.may_be.contains(&What::Signature));
    signatures.for_each(|mark| mark.is_read = false);
    faults.0.extend(marks.iter().filter_map(|mark| mark.vanished(&with_bytes(text), &debug, losses)));
    unread(reader, &mut faults);
    faults.same("candidates", &said.candidates.len(), &read.candidates.len(), losses, &[What::Candidates]);
    faults.kept(
        "service_tier",
        &tier(&said.service_tier),
        &tier(&read.service_tier),
        losses,
        &[What::ServiceTier],
    );
    if let (Some(one), Some(other)) = (said.candidates.first(), read.candidates.first()) {
        let kind = |finish: &Finish<'_>| match finish {
            Finish::StopSequence(None) => Finish::Stop,
            Finish::ContentFilter(_) | Finish::Refusal => Finish::Refusal,
            other => other.to_static(),
        };
        // A refusal that is said in so many words may be the reason of the end as well.
        let is_refused = one.parts.iter().any(|part| matches!(part.kind, PartKind::Refusal { .. }));
        if !is_refused {
            faults.same("finish", &kind(&one.finish), &kind(&other.finish), losses, &[]);
        }
    }
    let (one, other) = (said.usage.unwrap_or_default(), read.usage.unwrap_or_default());
    faults.same("input", &one.input, &other.input, losses, &[]);
    faults.same("output", &one.output, &other.output, losses, &[]);
    let some = |count: Option<u64>| count.filter(|count| *count > 0);
    faults.kept("cache_read", &some(one.cache_read), &some(other.cache_read), losses, &[]);
    faults.kept(
        "cache_written",
        &some(one.cache_written),
        &some(other.cache_written),
        losses,
        &[What::UsageDetail],
    );
    faults.kept(
        "reasoning tokens",
        &some(one.reasoning),
        &some(other.reasoning),
        losses,
        &[What::UsageDetail],
    );
    let lost: Vec<String> = losses.kept().iter().map(|loss| format!("{} {}", loss.what, loss.at)).collect();
    faults.check(|| format!("{dialect} wrote {text}\nlost {lost:?}\nof {said:#?}\nread {read:#?}"))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

macro_rules! of_each_dialect {
    ($($module:ident $dialect:ident,)*) => {
        $(mod $module {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 400, max_global_rejects: 400, ..ProptestConfig::default() })]

                #[test]
                fn no_request_loses_anything_in_silence(bytes in bytes()) {
                    request(&bytes, Dialect::$dialect)?;
                }

                #[test]
                fn no_reply_loses_anything_in_silence(bytes in bytes()) {
                    reply(&bytes, Dialect::$dialect)?;
                }

                #[test]
                fn no_stream_loses_anything_in_silence(bytes in bytes()) {
                    stream(&bytes, Dialect::$dialect)?;
                }
            }
        })*
    };
}

of_each_dialect! {
    openai_chat OpenaiChat,
    openai_responses OpenaiResponses,
    anthropic_messages AnthropicMessages,
    gemini Gemini,
}
