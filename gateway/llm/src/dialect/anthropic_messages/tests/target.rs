//! Requests that clients of other dialects sent, as this dialect's provider gets them.

use crate::custom;
use crate::dialect::Dialect;
use crate::dialect::anthropic_messages::{decode_reply, encode_reply, encode_request};
use crate::json::{Number, Reader};
use crate::loss::{Losses, What};
use crate::neutral::{
    CacheControl, Candidate, Finish, Format, LogProbabilities, Native, Part, PartKind, Reasoning, Reply,
    Request, Role, Sampling, Signature, Source, State, Tool, ToolChoice, ToolKind, Turn,
};
use crate::target::{Model, Target, Thinking};

const BUDGET: Thinking = Thinking::Budget { min: 1024, max: 64_000, can_be_off: true };

/// Writes a request for a model, and says the body and what was lost.
fn written(request: &Request<'_>, facts: Model) -> Result<(serde_json::Value, Vec<String>), String> {
    let target = Target { model_facts: facts, ..Target::new("claude") };
    let mut losses = Losses::default();
    let body = encode_request(request, &target, &mut losses).map_err(|invalid| invalid.to_string())?;
    let body = serde_json::from_slice(&body).expect("it is JSON");
    Ok((body, losses.kept().iter().map(|loss| format!("{} {}", loss.what, loss.at)).collect()))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("it is JSON")
}

fn user<'a>(text: &'a str) -> Turn<'a> {
    Turn::new(Role::User, vec![Part::text(text)])
}

fn call<'a>(id: &'a str, arguments: &'a str) -> Part<'a> {
    let (id, name) = (id.into(), "f".into());
    Part::new(PartKind::ToolCall { id, name, arguments: arguments.into(), is_custom: false })
}

fn result<'a>(id: &'a str, text: &'a str) -> Turn<'a> {
    let content = vec![Part::text(text)];
    let result =
        PartKind::ToolResult { id: id.into(), name: None, content, is_error: None, is_custom: false };
    Turn::new(Role::Tool, vec![Part::new(result)])
}

fn function<'a>(name: &'a str, schema: Option<&'a str>, strict: Option<bool>) -> Tool<'a> {
    let schema = schema.map(Into::into);
    let kind = ToolKind::Function { name: name.into(), description: None, schema, strict };
    Tool { kind, cache: None, native: Vec::new() }
}

fn thinking<'a>(text: &'a str, signature: Option<Signature<'a>>) -> Part<'a> {
    let kind = PartKind::Thinking { text: text.into(), is_summary: false, is_redacted: false, id: None };
    Part { kind, state: State { signature, ..State::default() } }
}

fn asks<'a>(turns: Vec<Turn<'a>>) -> Request<'a> {
    Request { turns, max_output_tokens: Some(4096), ..Request::default() }
}

/// What turns become: `system` and `messages`.
#[test]
fn turns_become_messages() {
    let developer = |text: &'static str| Turn::new(Role::Developer, vec![Part::text(text)]);
    let system = |text: &'static str| Turn::new(Role::System, vec![Part::text(text)]);
    let assistant = |parts| Turn::new(Role::Assistant, parts);
    let signed = |by| Some(Signature { by, value: "s".into() });
    let with = |kind| Turn::new(Role::User, vec![Part::new(kind), Part::text("?")]);
    let data = |media_type: &'static str, data: &'static str| Source::Data {
        media_type: media_type.into(),
        data: data.into(),
    };
    let document = |source| PartKind::Document { source, name: Some("n".into()), context: None, cite: None };
    let image = |source| PartKind::Image { source, detail: Some("high".into()) };
    let hi = r#"[{"role":"user","content":"hi"}]"#;
    for (name, turns, expected_system, expected, losses) in [
        // Trap 2.
        (
            "instructions are hoisted and joined",
            vec![system("a"), developer("b"), user("hi")],
            r#"[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#,
            hi,
            vec![],
        ),
        (
            "later ones too, which is told",
            vec![system("a"), user("hi"), developer("b")],
            r#"[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#,
            hi,
            vec!["instruction_place turns[2]"],
        ),
        (
            "instructions alone are what is asked",
            vec![system("a"), system("b")],
            r#""a""#,
            r#"[{"role":"user","content":"b"}]"#,
            vec!["instruction_place turns[1]"],
        ),
        // Traps 3, 4, 5.
        (
            "results of tools are one turn of the user's, and empty arguments an empty object",
            vec![
                user("hi"),
                assistant(vec![Part::text(""), call("a", ""), call("b", "{\"x\": 1}")]),
                result("a", "1"),
                result("b", " "),
                user("and?"),
            ],
            "null",
            r#"[{"role":"user","content":"hi"},{"role":"assistant","content":[
                {"type":"tool_use","id":"a","name":"f","input":{}},
                {"type":"tool_use","id":"b","name":"f","input":{"x":1}}]},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"1"},
                {"type":"tool_result","tool_use_id":"b"},{"type":"text","text":"and?"}]}]"#,
            vec![],
        ),
        (
            "words between a call and its result stand behind the result",
            vec![user("hi"), assistant(vec![call("a", "{}")]), user("wait"), result("a", "1")],
            "null",
            r#"[{"role":"user","content":"hi"},{"role":"assistant","content":[
                {"type":"tool_use","id":"a","name":"f","input":{}}]},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"1"},
                {"type":"text","text":"wait"}]}]"#,
            vec![],
        ),
        // Trap 30.
        (
            "arguments that are no object are wrapped",
            vec![user("hi"), assistant(vec![call("a", "{}{}")]), result("a", "1")],
            "null",
            r#"[{"role":"user","content":"hi"},{"role":"assistant","content":[
                {"type":"tool_use","id":"a","name":"f","input":{"input":"{}{}"}}]},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"1"}]}]"#,
            vec!["tool_detail turns[1].parts[0].arguments"],
        ),
        // Trap 17.
        (
            "identities fit, at the call and at its result",
            vec![user("hi"), assistant(vec![call("functions.f:0", "{}")]), result("functions.f:0", "1")],
            "null",
            r#"[{"role":"user","content":"hi"},{"role":"assistant","content":[
                {"type":"tool_use","id":"gwi-functions-2Ef-3A0","name":"f","input":{}}]},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"gwi-functions-2Ef-3A0","content":"1"}]}]"#,
            vec![],
        ),
        // Trap 11.
        (
            "thoughts go to whom they belong",
            vec![
                user("hi"),
                assistant(vec![
                    thinking("mine", signed(Dialect::AnthropicMessages)),
                    thinking("theirs", signed(Dialect::Gemini)),
                    thinking("nobody's", None),
                    Part::text("yes"),
                ]),
                user("so?"),
            ],
            "null",
            r#"[{"role":"user","content":"hi"},{"role":"assistant","content":[
                {"type":"thinking","thinking":"mine","signature":"s"},{"type":"text","text":"yes"}]},
                {"role":"user","content":"so?"}]"#,
            vec!["reasoning_block turns[1].parts[1]", "reasoning_block turns[1].parts[2]"],
        ),
        (
            "a turn of foreign thoughts alone vanishes, and its neighbours are one",
            vec![user("hi"), assistant(vec![thinking("hm", None)]), user("so?")],
            "null",
            r#"[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"text","text":"so?"}]}]"#,
            vec!["reasoning_block turns[1].parts[0]"],
        ),
        // Trap 41.
        (
            "pictures",
            vec![with(image(data("image/jpg", "AA==")))],
            "null",
            r#"[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/jpeg",
                "data":"AA=="}},{"type":"text","text":"?"}]}]"#,
            vec!["part_detail turns[0].parts[0].detail"],
        ),
        (
            "pictures of a kind that is not taken",
            vec![with(image(data("image/svg+xml", "AA==")))],
            "null",
            r#"[{"role":"user","content":"?"}]"#,
            vec!["part_detail turns[0].parts[0].detail", "image turns[0].parts[0]"],
        ),
        (
            "pictures that another provider keeps",
            vec![with(PartKind::Image {
                source: Source::File { id: "f".into(), dialect: Dialect::OpenaiChat },
                detail: None,
            })],
            "null",
            r#"[{"role":"user","content":"?"}]"#,
            vec!["image turns[0].parts[0]"],
        ),
        (
            "documents of text, in base64",
            vec![with(document(data("text/csv", "YSxi")))],
            "null",
            r#"[{"role":"user","content":[{"type":"document","source":{"type":"text","media_type":"text/plain",
                "data":"a,b"},"title":"n"},{"type":"text","text":"?"}]}]"#,
            vec![],
        ),
        (
            "documents that are neither text nor PDF",
            vec![with(document(data("application/msword", "AA==")))],
            "null",
            r#"[{"role":"user","content":"?"}]"#,
            vec!["document turns[0].parts[0]"],
        ),
        (
            "sound and films",
            vec![
                with(PartKind::Audio { source: data("audio/wav", "AA=="), transcript: Some("hello".into()) }),
                with(PartKind::Video { source: data("video/mp4", "AA==") }),
            ],
            "null",
            r#"[{"role":"user","content":[{"type":"text","text":"hello"},{"type":"text","text":"?"},
                {"type":"text","text":"?"}]}]"#,
            vec!["audio turns[0].parts[0]", "video turns[1].parts[0]"],
        ),
        (
            "pictures of the model's",
            vec![
                user("hi"),
                assistant(vec![Part::new(PartKind::Image {
                    source: data("image/png", "AA=="),
                    detail: None,
                })]),
            ],
            "null",
            hi,
            vec!["image turns[1].parts[0]"],
        ),
        (
            "refusals are words, and blocks of others are lost",
            vec![
                user("hi"),
                assistant(vec![
                    Part::new(PartKind::Refusal { text: "no".into() }),
                    Part::new(PartKind::Native {
                        dialect: Dialect::Gemini,
                        kind: "k".into(),
                        raw: "{}".into(),
                    }),
                ]),
            ],
            "null",
            r#"[{"role":"user","content":"hi"},{"role":"assistant","content":"no"}]"#,
            vec!["refusal turns[1].parts[0]", "provider_tool turns[1].parts[1]"],
        ),
        (
            "names of speakers",
            vec![Turn { name: Some("Ann".into()), ..user("hi") }],
            "null",
            hi,
            vec!["speaker_name turns[0].name"],
        ),
        // Trap 22.
        (
            "a signature of another's on a call",
            vec![
                user("hi"),
                assistant(vec![Part {
                    state: State { signature: signed(Dialect::Gemini), ..State::default() },
                    ..call("a", "{}")
                }]),
                result("a", "1"),
            ],
            "null",
            r#"[{"role":"user","content":"hi"},{"role":"assistant","content":[
                {"type":"tool_use","id":"a","name":"f","input":{}}]},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"1"}]}]"#,
            vec!["signature turns[1].parts[0].signature"],
        ),
    ] {
        let (body, lost) = written(&asks(turns), Model::default()).expect(name);
        assert_eq!(body["system"], json(expected_system), "{name}");
        assert_eq!(body["messages"], json(expected), "{name}");
        assert_eq!(lost, losses, "{name}");
    }
}

/// What would be refused and cannot be said otherwise.
#[test]
fn what_cannot_be_said_is_refused() {
    let assistant = |parts| Turn::new(Role::Assistant, parts);
    let long = "x".repeat(129);
    for (name, request, expected) in [
        ("nothing", asks(vec![user(" ")]), "messages: There is nothing"),
        (
            "no result",
            asks(vec![user("hi"), assistant(vec![call("a", "{}")]), user("x")]),
            "turns[1]: The tool call \"a\" has no result",
        ),
        (
            "no result at the end",
            asks(vec![user("hi"), assistant(vec![call("a", "{}")])]),
            "turns[1]: The tool call \"a\" has no result",
        ),
        (
            "a name too long",
            Request { tools: vec![function(&long, None, None)], ..asks(vec![user("hi")]) },
            "tools[0].name: This name of a tool is too long",
        ),
    ] {
        let error = written(&request, Model::default()).expect_err(name);
        assert!(error.starts_with(expected), "{name}: {error}");
    }
}

/// Tools, and which may be called.
#[test]
fn tools_become_tools() {
    let plain = r#"{"name":"f","input_schema":{"type":"object","properties":{}}}"#;
    let custom_tool = |format: Option<&'static str>| Tool {
        kind: ToolKind::Custom { name: "sql".into(), description: None, format: format.map(Into::into) },
        cache: None,
        native: Vec::new(),
    };
    let foreign = Tool {
        kind: ToolKind::Provider { dialect: Dialect::Gemini, kind: "googleSearch".into(), raw: "{}".into() },
        cache: None,
        native: vec![],
    };
    let sql = format!(r#"{{"name":"sql","input_schema":{}}}"#, custom::SCHEMA);
    let grammar = format!(
        r#"{{"name":"sql","description":"`input` must match this Lark grammar:\na","input_schema":{}}}"#,
        custom::SCHEMA
    );
    let named = |name: &'static str| Some(ToolChoice::Named(name.into()));
    let allowed = |required| Some(ToolChoice::Allowed { required, names: vec!["g".into()] });
    let both = || vec![function("f", None, None), function("g", Some(r#"{"type":"object"}"#), Some(false))];
    let g = r#"{"name":"g","input_schema":{"type":"object"},"strict":false}"#;
    for (name, tools, choice, parallel, expected, expected_choice, losses) in [
        ("none", vec![], None, None, "null".to_owned(), "null", vec![]),
        (
            "a choice of none",
            vec![],
            Some(ToolChoice::None),
            Some(false),
            "null".to_owned(),
            "null",
            vec!["tool_choice tool_choice", "parallel_tool_calls parallel_tool_calls"],
        ),
        (
            "a choice that cannot be met",
            vec![],
            Some(ToolChoice::Required),
            None,
            "null".to_owned(),
            "null",
            vec!["tool_choice tool_choice"],
        ),
        (
            "without a schema",
            vec![function("f", None, None)],
            None,
            None,
            format!("[{plain}]"),
            "null",
            vec![],
        ),
        // Trap 6.
        (
            "one at a time, without a choice",
            vec![function("f", None, None)],
            None,
            Some(false),
            format!("[{plain}]"),
            r#"{"type":"auto","disable_parallel_tool_use":true}"#,
            vec![],
        ),
        // Trap 7.
        (
            "required",
            vec![function("f", None, None)],
            Some(ToolChoice::Required),
            Some(false),
            format!("[{plain}]"),
            r#"{"type":"any","disable_parallel_tool_use":true}"#,
            vec![],
        ),
        (
            "none, where `disable_parallel_tool_use` must not stand",
            vec![function("f", None, None)],
            Some(ToolChoice::None),
            Some(false),
            format!("[{plain}]"),
            r#"{"type":"none"}"#,
            vec!["parallel_tool_calls parallel_tool_calls"],
        ),
        (
            "named",
            vec![function("f", None, None)],
            named("f"),
            None,
            format!("[{plain}]"),
            r#"{"type":"tool","name":"f"}"#,
            vec![],
        ),
        (
            "some are allowed",
            both(),
            allowed(false),
            None,
            format!("[{g}]"),
            r#"{"type":"auto"}"#,
            vec!["tool_choice tool_choice"],
        ),
        (
            "one of them must be called",
            both(),
            allowed(true),
            None,
            format!("[{g}]"),
            r#"{"type":"any"}"#,
            vec!["tool_choice tool_choice"],
        ),
        // Trap 66.
        (
            "tools that take text",
            vec![custom_tool(Some(r#"{"type":"text"}"#))],
            named("sql"),
            None,
            format!("[{sql}]"),
            r#"{"type":"tool","name":"sql"}"#,
            vec![],
        ),
        (
            "tools that take text of a grammar",
            vec![custom_tool(Some(r#"{"type":"grammar","syntax":"lark","definition":"a"}"#))],
            None,
            None,
            format!("[{grammar}]"),
            "null",
            vec!["custom_tool tools[0].format"],
        ),
        (
            "tools of others",
            vec![foreign],
            None,
            None,
            "null".to_owned(),
            "null",
            vec!["provider_tool tools[0]"],
        ),
        (
            "names are made to fit",
            vec![function("mail.send", None, None)],
            None,
            None,
            r#"[{"name":"gwi-mail-2Esend","input_schema":{"type":"object","properties":{}}}]"#.to_owned(),
            "null",
            vec![],
        ),
    ] {
        let request =
            Request { tools, tool_choice: choice, parallel_tool_calls: parallel, ..asks(vec![user("hi")]) };
        let (body, lost) = written(&request, Model::default()).expect(name);
        assert_eq!(body["tools"], json(&expected), "{name}");
        assert_eq!(body["tool_choice"], json(expected_choice), "{name}");
        assert_eq!(lost, losses, "{name}");
    }
}

/// Schemas of tools, in traps 15 and 16.
#[test]
fn schemas_are_held_to_what_can_be_enforced() {
    for (name, is_strict, schema, expected, losses) in [
        (
            "whole",
            false,
            r#"{"type":"object","a":{"minItems":3}}"#,
            r#"{"type":"object","a":{"minItems":3}}"#,
            vec![],
        ),
        (
            "no type",
            false,
            r#"{"properties":{"a":{}}}"#,
            r#"{"type":"object","properties":{"a":{}}}"#,
            vec![],
        ),
        ("no object", false, "true", r#"{"type":"object","properties":{}}"#, vec![]),
        (
            "a choice at the top",
            false,
            r#"{"type":"object","anyOf":[{"required":["a"]}]}"#,
            r#"{"type":"object"}"#,
            vec!["schema_keyword tools[0].schema.anyOf"],
        ),
        (
            "strict",
            true,
            r#"{"properties":{"a":{"type":"string","format":"uuid","maxLength":9,"description":"d"},
                "b":{"type":"array","items":{"type":"object","properties":{"c":true},"additionalProperties":true},
                "minItems":1},"d":{"enum":[1,2],"default":1},"e":{"type":"string","format":"regex"}}}"#,
            r#"{"type":"object","properties":{"a":{"type":"string","format":"uuid","description":"d (maxLength: 9)"},
                "b":{"type":"array","items":{"type":"object","properties":{"c":true},"additionalProperties":false},
                "minItems":1},"d":{"enum":[1,2],"default":1},
                "e":{"type":"string","description":"(format: \"regex\")"}},"additionalProperties":false}"#,
            vec![
                "schema_keyword tools[0].schema.properties.a.maxLength",
                "schema_keyword tools[0].schema.properties.b.items.additionalProperties",
                "schema_keyword tools[0].schema.properties.e.format",
            ],
        ),
        (
            "a property that is called like a keyword",
            true,
            r#"{"type":"object","properties":{"minimum":{"type":"number"},"format":{"type":"string"}}}"#,
            r#"{"type":"object","properties":{"minimum":{"type":"number"},"format":{"type":"string"}},
                "additionalProperties":false}"#,
            vec![],
        ),
    ] {
        let strict = is_strict.then_some(true);
        let request = Request { tools: vec![function("f", Some(schema), strict)], ..asks(vec![user("hi")]) };
        let (body, lost) = written(&request, Model::default()).expect(name);
        assert_eq!(body["tools"][0]["input_schema"], json(expected), "{name}");
        assert_eq!(lost, losses, "{name}");
    }
}

/// Efforts and budgets, by model: the table of the module's documentation, and traps 8, 9 and 10.
#[test]
fn thinking_is_said_in_the_models_words() {
    let effort = |word: &'static str| Reasoning { effort: Some(word.into()), ..Reasoning::default() };
    let budget = |tokens| Reasoning { enabled: Some(true), budget: Some(tokens), ..Reasoning::default() };
    let shown = |word: &'static str| Reasoning {
        effort: Some("low".into()),
        summary: Some(word.into()),
        ..Reasoning::default()
    };
    let enabled = |tokens: u64| format!(r#"{{"type":"enabled","budget_tokens":{tokens}}}"#);
    let (adaptive, disabled, null) =
        (r#"{"type":"adaptive"}"#.to_owned(), r#"{"type":"disabled"}"#.to_owned(), "null".to_owned());
    let stuck = Thinking::Budget { min: 2048, max: 8000, can_be_off: false };
    for (name, asked, style, max_tokens, thinking, word, losses) in [
        ("low", effort("low"), Some(BUDGET), 100_000, enabled(1024), None, vec![]),
        ("minimal", effort("minimal"), Some(BUDGET), 100_000, enabled(1024), None, vec![]),
        ("medium", effort("medium"), Some(BUDGET), 100_000, enabled(8192), None, vec![]),
        ("high", effort("high"), Some(BUDGET), 100_000, enabled(24_576), None, vec![]),
        ("xhigh", effort("xhigh"), Some(BUDGET), 100_000, enabled(32_768), None, vec![]),
        ("max", effort("max"), Some(BUDGET), 1_000_000, enabled(64_000), None, vec![]),
        ("half is left", effort("high"), Some(BUDGET), 10_000, enabled(5000), None, vec![]),
        ("but not less than the least", effort("high"), Some(BUDGET), 1500, enabled(1024), None, vec![]),
        ("no room", effort("high"), Some(BUDGET), 1024, null.clone(), None, vec!["reasoning reasoning"]),
        ("none", effort("none"), Some(BUDGET), 4096, disabled.clone(), None, vec![]),
        ("500", budget(500), Some(BUDGET), 4096, enabled(1024), None, vec!["reasoning reasoning.budget"]),
        ("as named", budget(3000), Some(BUDGET), 4096, enabled(3000), None, vec![]),
        (
            "too much",
            budget(9000),
            Some(BUDGET),
            4096,
            enabled(4095),
            None,
            vec!["reasoning reasoning.budget"],
        ),
        (
            "the model's least",
            budget(1024),
            Some(stuck),
            4096,
            enabled(2048),
            None,
            vec!["reasoning reasoning.budget"],
        ),
        ("the model's most", effort("max"), Some(stuck), 100_000, enabled(8000), None, vec![]),
        (
            "it cannot be off",
            effort("none"),
            Some(stuck),
            4096,
            null.clone(),
            None,
            vec!["reasoning reasoning"],
        ),
        (
            "adaptive: low",
            effort("low"),
            Some(Thinking::Adaptive),
            4096,
            adaptive.clone(),
            Some("low"),
            vec![],
        ),
        (
            "adaptive: max",
            effort("max"),
            Some(Thinking::Adaptive),
            4096,
            adaptive.clone(),
            Some("max"),
            vec![],
        ),
        (
            "adaptive: minimal",
            effort("minimal"),
            Some(Thinking::Adaptive),
            4096,
            adaptive.clone(),
            Some("low"),
            vec!["reasoning reasoning.effort"],
        ),
        ("adaptive: none", effort("none"), Some(Thinking::Adaptive), 4096, disabled.clone(), None, vec![]),
        (
            "adaptive: a budget",
            budget(20_000),
            Some(Thinking::Adaptive),
            4096,
            adaptive.clone(),
            Some("high"),
            vec!["reasoning reasoning.budget"],
        ),
        (
            "adaptive: shown",
            shown("auto"),
            Some(Thinking::Adaptive),
            4096,
            r#"{"type":"adaptive","display":"summarized"}"#.to_owned(),
            Some("low"),
            vec![],
        ),
        (
            "adaptive: shown in detail",
            shown("detailed"),
            Some(Thinking::Adaptive),
            4096,
            r#"{"type":"adaptive","display":"summarized"}"#.to_owned(),
            Some("low"),
            vec!["reasoning reasoning.summary"],
        ),
        (
            "no thinker",
            effort("high"),
            Some(Thinking::None),
            4096,
            null.clone(),
            None,
            vec!["reasoning reasoning"],
        ),
        ("no thinker: none", effort("none"), Some(Thinking::None), 4096, null.clone(), None, vec![]),
        ("unknown: an effort", effort("high"), None, 4096, null.clone(), Some("high"), vec![]),
        ("unknown: a budget", budget(2000), None, 4096, enabled(2000), None, vec![]),
        ("an unknown effort", effort("huge"), None, 4096, null, None, vec!["reasoning reasoning.effort"]),
    ] {
        let mut request = asks(vec![user("hi")]);
        request.reasoning = Some(asked);
        request.max_output_tokens = Some(max_tokens);
        let facts = Model { thinking: style, ..Model::default() };
        let (body, lost) = written(&request, facts).expect(name);
        assert_eq!(body["thinking"], json(&thinking), "{name}");
        assert_eq!(body["output_config"]["effort"].as_str(), word, "{name}");
        assert_eq!(lost, losses, "{name}");
    }
}

#[test]
fn thinking_gives_way_where_it_would_be_refused() {
    let high = Some(Reasoning { effort: Some("high".into()), ..Reasoning::default() });
    let assistant = |parts| Turn::new(Role::Assistant, parts);
    let signed = || thinking("t", Some(Signature { by: Dialect::AnthropicMessages, value: "s".into() }));
    let looped = |first: Option<Part<'static>>| {
        let parts = first.into_iter().chain([call("a", "{}")]).collect();
        vec![user("hi"), assistant(parts), result("a", "1")]
    };
    let ended = || {
        let mut turns = looped(None);
        turns.extend([assistant(vec![Part::text("done")]), user("again")]);
        turns
    };
    let tools = || vec![function("f", None, None)];
    for (name, style, turns, choice, thinks) in [
        ("thoughts are there", BUDGET, looped(Some(signed())), None, true),
        ("thoughts are missing", BUDGET, looped(None), None, false),
        ("thoughts are missing in a turn that is over", BUDGET, ended(), None, true),
        ("thoughts are missing, and need not be there", Thinking::Adaptive, looped(None), None, true),
        ("a tool must be called", BUDGET, vec![user("hi")], Some(ToolChoice::Required), false),
        (
            "this tool must be called",
            Thinking::Adaptive,
            vec![user("hi")],
            Some(ToolChoice::Named("f".into())),
            false,
        ),
        ("a tool may be called", BUDGET, vec![user("hi")], Some(ToolChoice::Auto), true),
    ] {
        let request = Request { tools: tools(), tool_choice: choice, reasoning: high.clone(), ..asks(turns) };
        let facts = Model { thinking: Some(style), ..Model::default() };
        let (body, lost) = written(&request, facts).expect(name);
        assert_eq!(!body["thinking"].is_null(), thinks, "{name}");
        assert_eq!(lost.is_empty(), thinks, "{name}: {lost:?}");
    }
}

/// Traps 1 and 9, and what this dialect has no words for.
#[test]
fn parameters_become_parameters() {
    let number = |text: &'static str| Some(Number::from_text(text));
    let base = || asks(vec![user("hi")]);
    let sampled = |temperature, top_p, top_k| Request {
        sampling: Sampling { temperature, top_p, top_k, ..Sampling::default() },
        ..base()
    };
    let thinks = |request| Request {
        reasoning: Some(Reasoning { enabled: Some(true), budget: Some(2000), ..Reasoning::default() }),
        ..request
    };
    let unknown = Model::default();
    let limited = Model { output_tokens: Some(64_000), ..unknown };
    let unsampled = Model { takes_sampling: Some(false), ..unknown };
    let none = |request| Request { max_output_tokens: None, ..request };
    let schema = || Format::Schema {
        name: Some("n".into()),
        description: None,
        schema: r#"{"type":"object","properties":{}}"#.into(),
        strict: None,
    };
    let written_schema = r#"{"format":{"type":"json_schema","schema":{"title":"n","type":"object","properties":{},
        "additionalProperties":false}}}"#;
    for (name, request, facts, field, expected, losses) in [
        ("the model's bound", none(base()), limited, "max_tokens", "64000", vec![]),
        ("no bound is known", none(base()), unknown, "max_tokens", "32000", vec![]),
        ("no bound, but a budget", none(thinks(base())), unknown, "max_tokens", "34000", vec![]),
        ("the client's bound", base(), limited, "max_tokens", "4096", vec![]),
        ("digits stay", sampled(number("0.70"), None, None), unknown, "temperature", "0.7", vec![]),
        (
            "above 1",
            sampled(number("1.7"), None, None),
            unknown,
            "temperature",
            "1",
            vec!["sampling temperature"],
        ),
        (
            "with thoughts",
            thinks(sampled(number("0.5"), None, None)),
            unknown,
            "temperature",
            "null",
            vec!["sampling temperature"],
        ),
        (
            "1 with thoughts is no loss",
            thinks(sampled(number("1.0"), None, None)),
            unknown,
            "temperature",
            "null",
            vec![],
        ),
        (
            "top_k with thoughts",
            thinks(sampled(None, None, number("5"))),
            unknown,
            "top_k",
            "null",
            vec!["sampling top_k"],
        ),
        (
            "top_p with thoughts",
            thinks(sampled(None, number("0.9"), None)),
            unknown,
            "top_p",
            "null",
            vec!["sampling top_p"],
        ),
        (
            "large top_p with thoughts",
            thinks(sampled(None, number("0.97"), None)),
            unknown,
            "top_p",
            "0.97",
            vec![],
        ),
        (
            "both",
            sampled(number("0.5"), number("0.9"), None),
            unknown,
            "top_p",
            "null",
            vec!["sampling top_p"],
        ),
        (
            "not taken",
            sampled(number("0.5"), None, None),
            unsampled,
            "temperature",
            "null",
            vec!["sampling temperature"],
        ),
        (
            "what there is no word for",
            Request {
                candidates: Some(2),
                modalities: vec!["text".into(), "audio".into()],
                verbosity: Some("low".into()),
                metadata: vec![("a".into(), "b".into())],
                store: Some(true),
                prompt_cache_key: Some("k".into()),
                sampling: Sampling {
                    presence_penalty: number("1"),
                    frequency_penalty: number("1"),
                    seed: number("7"),
                    logit_bias: Some("{}".into()),
                    log_probabilities: Some(LogProbabilities { alternatives: None }),
                    ..Sampling::default()
                },
                native: vec![Native::new(Dialect::Gemini, What::Safety, "safetySettings", "[]")],
                ..base()
            },
            unknown,
            "seed",
            "null",
            vec![
                "candidates candidates",
                "modalities modalities",
                "verbosity verbosity",
                "metadata metadata",
                "stored store",
                "cache_control prompt_cache_key",
                "safety safetySettings",
                "sampling presence_penalty",
                "sampling frequency_penalty",
                "seed seed",
                "sampling logit_bias",
                "logprobs logprobs",
            ],
        ),
        (
            "one answer",
            Request { candidates: Some(1), store: Some(false), ..base() },
            unknown,
            "n",
            "null",
            vec![],
        ),
        (
            "a tier",
            Request { service_tier: Some("default".into()), ..base() },
            unknown,
            "service_tier",
            r#""standard_only""#,
            vec![],
        ),
        (
            "another's tier",
            Request { service_tier: Some("flex".into()), ..base() },
            unknown,
            "service_tier",
            "null",
            vec!["service_tier service_tier"],
        ),
        (
            "a user",
            Request { user: Some("u".into()), ..base() },
            unknown,
            "metadata",
            r#"{"user_id":"u"}"#,
            vec![],
        ),
        (
            "a schema",
            Request { format: Some(schema()), ..base() },
            unknown,
            "output_config",
            written_schema,
            vec![],
        ),
        (
            "a schema for a model without",
            Request { format: Some(schema()), ..base() },
            Model { structured_output: Some(false), ..unknown },
            "output_config",
            "null",
            vec!["output_format format"],
        ),
        (
            "any JSON",
            Request { format: Some(Format::Json), ..base() },
            unknown,
            "output_config",
            "null",
            vec!["output_format format"],
        ),
        ("text", Request { format: Some(Format::Text), ..base() }, unknown, "output_config", "null", vec![]),
    ] {
        let (body, lost) = written(&request, facts).expect(name);
        assert_eq!(body[field], json(expected), "{name}");
        assert_eq!(lost, losses, "{name}");
    }
}

/// Trap 13, for marks in results, on tools and on the request.
#[test]
fn at_most_four_cache_marks_are_left() {
    let mark = || Some(CacheControl { raw: r#"{"type":"ephemeral"}"#.into() });
    let marked =
        |text: &'static str| Part { state: State { cache: mark(), ..State::default() }, ..Part::text(text) };
    for (tools, system, messages, whole) in [
        (0, 0, 9, false),
        (6, 0, 0, false),
        (6, 3, 3, true),
        (1, 5, 0, false),
        (0, 2, 8, true),
        (2, 1, 1, false),
    ] {
        let mut request = asks(vec![
            Turn::new(Role::System, (0..system).map(|_| marked("s")).chain([Part::text("s")]).collect()),
            Turn::new(Role::User, (0..messages).map(|_| marked("u")).chain([Part::text("u")]).collect()),
        ]);
        request.tools = (0..tools).map(|_| Tool { cache: mark(), ..function("f", None, None) }).collect();
        request.cache = mark().filter(|_| whole);
        let (body, lost) = written(&request, Model::default()).expect("it can be written");
        let asked = tools + system + messages + usize::from(whole);
        let count = body.to_string().matches("ephemeral").count();
        assert!(count == asked.min(4) || count == 3, "{tools} {system} {messages} {whole}: {count}");
        assert_eq!(count + lost.len(), asked, "each mark that is not there was noted");
    }
}

/// A client's reply keeps what has no place in this dialect as far as it can.
#[test]
fn replies_of_others_become_messages() {
    let signature = |by| Some(Signature { by, value: "s".into() });
    let gemini_call = Part {
        state: State { signature: signature(Dialect::Gemini), ..State::default() },
        ..call("call.1", "{}")
    };
    let custom = Part::new(PartKind::ToolCall {
        id: "c".into(),
        name: "sql".into(),
        arguments: "select".into(),
        is_custom: true,
    });
    for (name, parts, finish, expected, reason, losses) in [
        (
            "a signature behind its call",
            vec![gemini_call],
            Finish::Stop,
            r#"[{"type":"tool_use","id":"gwi-call-2E1","name":"f","input":{}},
                {"type":"redacted_thinking","data":"gw1.gemini.s"}]"#,
            "tool_use",
            vec![],
        ),
        (
            "thoughts with and without a signature",
            vec![thinking("a", signature(Dialect::OpenaiResponses)), thinking("b", None)],
            Finish::Stop,
            r#"[{"type":"thinking","thinking":"a","signature":"gw1.openai_responses.s"},
                {"type":"thinking","thinking":"b","signature":""}]"#,
            "end_turn",
            vec![],
        ),
        (
            "a call of a tool that takes text",
            vec![custom],
            Finish::ToolCalls,
            r#"[{"type":"tool_use","id":"c","name":"sql","input":{"input":"select"}}]"#,
            "tool_use",
            vec![],
        ),
        (
            "a refusal",
            vec![Part::new(PartKind::Refusal { text: "no".into() })],
            Finish::Refusal,
            r#"[{"type":"text","text":"no"}]"#,
            "refusal",
            vec![],
        ),
        (
            "a filter",
            vec![],
            Finish::ContentFilter(Some("SAFETY".into())),
            "[]",
            "refusal",
            vec!["safety finish"],
        ),
        (
            "a word of another's",
            vec![],
            Finish::Other("LANGUAGE".into()),
            "[]",
            "end_turn",
            vec!["unknown_field finish"],
        ),
    ] {
        let candidate = Candidate { index: 0, parts, finish, log_probabilities: None, native: Vec::new() };
        let reply = Reply {
            id: "chatcmpl-1".into(),
            model: "m".into(),
            candidates: vec![candidate],
            ..Reply::default()
        };
        let asked = crate::dialect::Asked::new(&Request::default(), crate::frames::Framing::Events, 7);
        let mut lost = Losses::default();
        let bytes = encode_reply(&reply, &asked, &mut lost);
        let body: serde_json::Value = serde_json::from_slice(&bytes).expect("it is JSON");
        assert_eq!(body["id"], "msg_1", "{name}");
        assert_eq!(body["content"], json(expected), "{name}");
        assert_eq!(body["stop_reason"], reason, "{name}");
        let lost: Vec<_> = lost.kept().iter().map(|loss| format!("{} {}", loss.what, loss.at)).collect();
        assert_eq!(lost, losses, "{name}");
        assert!(decode_reply(&bytes, &mut Reader::default()).is_ok(), "{name}");
    }
}
