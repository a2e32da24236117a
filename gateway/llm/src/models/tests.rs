use proptest::prelude::*;

use super::*;

#[test]
fn the_embedded_table_can_be_read() {
    let table = Models::default().merged(EMBEDDED).expect("it is one");
    assert!(table.entries.len() >= 100, "{}", table.entries.len());
    for entry in &table.entries {
        let name = entry.id.trim_end_matches('*');
        let found = table.find(name).map(|found| found.id.as_str());
        assert_eq!(found, Some(entry.id.as_str()), "its own name finds it");
        assert!(entry.context_tokens >= entry.output_tokens, "{} answers more than it can hold", entry.id);
    }
    let names: usize = table.entries.iter().map(|entry| 1 + entry.aliases.len()).sum();
    assert_eq!(table.names.len() + table.beginnings.len(), names, "no name stands for two models");
}

#[test]
fn models_are_found_however_they_are_written() {
    for (name, expected) in [
        ("claude-sonnet-4-5", Some("claude-sonnet-4-5")),
        ("claude-sonnet-4-5-20250929", Some("claude-sonnet-4-5")),
        ("anthropic/claude-sonnet-4.5", Some("claude-sonnet-4-5")),
        ("openrouter/anthropic/claude-sonnet-4.5:beta", Some("claude-sonnet-4-5")),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Some("claude-sonnet-4-5")),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", Some("claude-sonnet-4-5")),
        ("claude-sonnet-4-5@20250929", Some("claude-sonnet-4-5")),
        ("Claude-Sonnet-4-5", Some("claude-sonnet-4-5")),
        ("gpt-4.1-mini-2025-04-14", Some("gpt-4.1-mini")),
        ("gpt-4o-2024-05-13", Some("gpt-4o-2024-05-13")),
        ("gpt-4o-2024-08-06", Some("gpt-4o")),
        ("gpt-4-1106-preview", Some("gpt-4-turbo")),
        ("gpt-4-0613", Some("gpt-4")),
        ("ft:gpt-4.1-mini-2025-04-14:acme:suffix:abc", Some("ft:gpt-4.1-mini")),
        ("ft:gpt-4.1-mini-2025-04-14", Some("ft:gpt-4.1-mini")),
        ("ft:gpt-9:acme::abc", None),
        ("models/gemini-2.5-pro", Some("gemini-2.5-pro")),
        ("gemini-2.5-pro-preview-05-06", Some("gemini-2.5-pro")),
        ("gemini-2.5-flash-001", Some("gemini-2.5-flash")),
        ("gemini-2.5-flash-image", None),
        ("publishers/google/models/gemini-2.5-flash", Some("gemini-2.5-flash")),
        ("mistral-large-latest", Some("mistral-large-2512")),
        ("mistral-large-2407", None),
        ("groq/openai/gpt-oss-120b", Some("groq/openai/gpt-oss-120b")),
        ("openai/gpt-oss-120b", Some("gpt-oss-120b")),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", Some("llama-3.1-8b*")),
        ("accounts/fireworks/models/llama-3.1-8b-instruct", Some("llama-3.1-8b*")),
        ("llama3.1:8b", Some("llama-3.1-8b*")),
        ("deepseek-r1-distill-llama-70b", Some("deepseek-r1-distill*")),
        ("deepseek-ai/DeepSeek-R1-0528", Some("deepseek-r1*")),
        ("gpt-4.1-maxi", None),
        ("gpt", None),
        ("", None),
        ("/", None),
        ("2025", None),
        ("-2025-04-14", None),
        (":", None),
    ] {
        let found = Models::embedded().find(name).map(|entry| entry.id.as_str());
        assert_eq!(found, expected, "{name}");
    }
    let at = |host| Models::embedded().find_at(host, "openai/gpt-oss-120b").map(|entry| entry.id.as_str());
    assert_eq!(at("groq"), Some("groq/openai/gpt-oss-120b"));
    assert_eq!(at("mine"), Some("gpt-oss-120b"));
    assert!(Models::embedded().find(&"gpt-4o/".repeat(100)).is_none(), "it is too long");
}

#[test]
fn targets_are_told_what_a_model_can() {
    let facts = |name| Models::embedded().find(name).expect("it is known").facts();
    let sonnet = facts("claude-sonnet-4-5");
    assert_eq!((sonnet.context_tokens, sonnet.output_tokens), (Some(200_000), Some(64_000)));
    assert_eq!(sonnet.thinking, Some(Thinking::Budget { min: 1024, max: 64_000, can_be_off: true }));
    assert_eq!(
        (facts("claude-opus-4-6").thinking, facts("gpt-5").thinking),
        (Some(Thinking::Adaptive), Some(Thinking::Effort))
    );
    assert_eq!(
        (facts("claude-opus-4-8").system_turns, facts("claude-opus-4-7").system_turns),
        (Some(true), Some(false))
    );
    assert_eq!((facts("gpt-5").takes_sampling, facts("gpt-4.1").takes_sampling), (Some(false), Some(true)));
}

const FILE: &str = r#"{"as_of": "2026-12-01", "models": [
    {"id": "gpt-4.1", "prices": {"input": 1, "output": 2}},
    {"id": "own/llama", "aliases": ["house-*"], "context_tokens": 4096, "tools": true,
     "prices": {"input": 1000000, "output": 4000000, "cache_read": 100000, "search": 5000,
                "above": {"tokens": 1000, "input": 2000000, "output": 8000000, "cache_read": 200000},
                "batch": {"input": 500000, "output": 2000000}}}]}"#;

#[test]
fn a_file_changes_what_it_names_and_nothing_else() {
    let before = Models::embedded();
    let after = before.merged(FILE).expect("it is a table");
    let known = before.find("gpt-4.1").expect("it is known").clone();
    let changed = after.find("gpt-4.1").expect("it still is");
    let rates = Rates {
        input: 1,
        output: 2,
        cache_read: 1,
        cache_write_5m: 1,
        cache_write_1h: 1,
        audio_input: 1,
        audio_output: 2,
    };
    let standard = Card { rates, above: None };
    let prices = Prices { standard, batch: None, flex: None, priority: None, search: 0 };
    assert_eq!(*changed, Entry { prices: Some(prices), as_of: "2026-12-01".to_owned(), ..known });
    assert_eq!(after.find("house-special").map(|entry| entry.id.as_str()), Some("own/llama"));
    assert_eq!(after.entries.len(), before.entries.len() + 1);
}

#[test]
fn mistakes_in_a_file_are_named() {
    let model = |fields: &str| format!(r#"{{"as_of": "2026-11", "models": [{{"id": "x", {fields}}}]}}"#);
    let price = |fields: &str| model(&format!(r#""prices": {{"input": 2, "output": 2, {fields}}}"#));
    for (file, expected) in [
        ("[".to_owned(), "The JSON ends too early. (line 1, column 2 of the body)"),
        ("{}".to_owned(), "as_of: This field is required."),
        (r#"{"as_of": "today", "models": []}"#.to_owned(), "as_of: This must be a month or a day"),
        (r#"{"as_of": "2026-11"}"#.to_owned(), "models: This field is required."),
        (r#"{"as_of": "2026-11", "models": [{}]}"#.to_owned(), "models[0].id: This field is required."),
        (
            r#"{"as_of": "2026-11", "models": [{"id": "*"}]}"#.to_owned(),
            "models[0].id: This must be a model's name",
        ),
        (
            r#"{"as_of": "2026-11", "models": [{"id": "a*b"}]}"#.to_owned(),
            "models[0].id: This must be a model's name",
        ),
        (model(r#""price": 1"#), "models[0].price: There is no such field."),
        (model(r#""aliases": ["y", ""]"#), "models[0].aliases[1]: This must be a model's name"),
        (model(r#""context_tokens": -1"#), "models[0].context_tokens: This must be a whole number"),
        (model(r#""input": ["smell"]"#), "models[0].input[0]: This must be text, image"),
        (model(r#""tools": "yes""#), "models[0].tools: This must be a boolean, and is a string."),
        (model(r#""thinking": "hard""#), "models[0].thinking: This must be none, effort"),
        (
            model(r#""thinking": {"budget": {"min": 2, "max": 1, "can_be_off": true}}"#),
            "models[0].thinking.budget.min:",
        ),
        (
            model(r#""thinking": {"budget": {"min": 2}}"#),
            "models[0].thinking.budget.max: This field is required.",
        ),
        (model(r#""prices": {"output": 2}"#), "models[0].prices.input: This field is required."),
        (
            model(r#""prices": {"input": 0.1, "output": 2}"#),
            "models[0].prices.input: This must be a whole number",
        ),
        (
            model(r#""prices": {"input": 2000000000000, "output": 2}"#),
            "models[0].prices.input: This must be micro-dollars",
        ),
        (price(r#""cached": 2"#), "models[0].prices.cached: There is no such field."),
        (
            price(r#""above": {"tokens": 9, "input": 1, "output": 2}"#),
            "models[0].prices.above.input: This must not be less",
        ),
        (
            price(r#""above": {"input": 3, "output": 2}"#),
            "models[0].prices.above.tokens: This field is required.",
        ),
        (price(r#""batch": {"input": 1}"#), "models[0].prices.batch.output: This field is required."),
    ] {
        let error = Models::embedded().merged(&file).expect_err(&file).to_string();
        assert!(error.starts_with(expected), "{file}\n{error}\n{expected}");
    }
}

fn usage(input: u64, output: u64) -> Usage {
    Usage { input: Some(input), output: Some(output), ..Usage::default() }
}

#[test]
fn requests_cost_what_the_price_list_says() {
    let table = Models::embedded().merged(FILE).expect("it is a table");
    let cached = Usage { cache_read: Some(900_000), ..usage(1_000_000, 0) };
    let written =
        Usage { cache_written: Some(600_000), cache_written_1h: Some(200_000), ..usage(1_000_000, 0) };
    for (name, usage, tier, expected) in [
        ("claude-sonnet-4-5", usage(1_000_000, 1_000_000), Tier::Standard, Some(18_000_000)),
        ("claude-sonnet-4-5", usage(1_000_000, 1_000_000), Tier::Batch, Some(9_000_000)),
        ("claude-sonnet-4-5", cached, Tier::Standard, Some(300_000 + 270_000)),
        // 400000 at 3, 400000 at 3.75, 200000 at 6.
        ("claude-sonnet-4-5", written, Tier::Standard, Some(1_200_000 + 1_500_000 + 1_200_000)),
        ("claude-sonnet-4-5", Usage { web_searches: Some(3), ..usage(0, 0) }, Tier::Standard, Some(30_000)),
        ("own/llama", Usage { web_searches: Some(3), ..usage(0, 0) }, Tier::Standard, Some(15_000)),
        ("own/llama", usage(1000, 0), Tier::Standard, Some(1000)),
        ("own/llama", usage(1001, 0), Tier::Standard, Some(2002)),
        ("own/llama", usage(1001, 1), Tier::Batch, Some(503)),
        ("own/llama", usage(2, 0), Tier::Batch, Some(1)),
        ("own/llama", usage(1, 0), Tier::Batch, Some(1)),
        ("own/llama", usage(10, 10), Tier::Priority, Some(50)),
        ("own/llama", Usage { audio_input: Some(4), ..usage(2, 0) }, Tier::Standard, Some(2)),
        ("own/llama", Usage::default(), Tier::Standard, Some(0)),
        ("gpt-oss-120b", usage(1, 1), Tier::Standard, None),
        ("nobody", usage(1, 1), Tier::Standard, None),
    ] {
        assert_eq!(table.cost(name, &usage, tier), expected, "{name} {usage:?} {tier:?}");
    }
    for (word, tier) in [
        (None, Tier::Standard),
        (Some("default"), Tier::Standard),
        (Some("priority"), Tier::Priority),
        (Some("flex"), Tier::Flex),
        (Some("batch"), Tier::Batch),
    ] {
        assert_eq!(Tier::of(word), tier);
    }
}

prop_compose! {
    fn rates()(input in 0..=price::MAX_RATE, output in 0..=price::MAX_RATE, others in any::<[u32; 5]>()) -> Rates {
        let [cache_read, cache_write_5m, cache_write_1h, audio_input, audio_output] = others.map(u64::from);
        Rates { input, output, cache_read, cache_write_5m, cache_write_1h, audio_input, audio_output }
    }
}

prop_compose! {
    fn cards()(rates in rates(), more in rates(), tokens in prop::option::of(0..5000_u64)) -> Card {
        let sum = |a: u64, b: u64| a.saturating_add(b).min(price::MAX_RATE);
        let above = Rates {
            input: sum(rates.input, more.input),
            output: sum(rates.output, more.output),
            cache_read: sum(rates.cache_read, more.cache_read),
            cache_write_5m: sum(rates.cache_write_5m, more.cache_write_5m),
            cache_write_1h: sum(rates.cache_write_1h, more.cache_write_1h),
            audio_input: sum(rates.audio_input, more.audio_input),
            audio_output: sum(rates.audio_output, more.audio_output),
        };
        Card { rates, above: tokens.map(|tokens| (tokens, above)) }
    }
}

prop_compose! {
    /// Parts that are within their sums.
    fn counts(max: u64)(parts in prop::array::uniform8(0..=max)) -> Usage {
        let [fresh, read, write_5m, write_1h, audio_input, words, audio_output, searches] = parts;
        let sum = |parts: &[u64]| parts.iter().fold(0_u64, |sum, part| sum.saturating_add(*part));
        Usage {
            input: Some(sum(&[fresh, read, write_5m, write_1h, audio_input])),
            output: Some(sum(&[words, audio_output])),
            cache_read: Some(read),
            cache_written: Some(sum(&[write_5m, write_1h])),
            cache_written_1h: Some(write_1h),
            audio_input: Some(audio_input),
            audio_output: Some(audio_output),
            web_searches: Some(searches),
            ..Usage::default()
        }
    }
}

/// The same, and so many tokens more of a kind.
fn grown(usage: Usage, kind: usize, more: u64) -> Usage {
    let add = |value: &mut Option<u64>| *value = Some(value.unwrap_or(0) + more);
    let mut grown = usage;
    match kind {
        0 => {}
        1 => add(&mut grown.cache_read),
        2 => add(&mut grown.cache_written),
        3 => {
            add(&mut grown.cache_written);
            add(&mut grown.cache_written_1h);
        }
        4 => add(&mut grown.audio_input),
        5 => add(&mut grown.output),
        6 => {
            add(&mut grown.output);
            add(&mut grown.audio_output);
        }
        _ => add(&mut grown.web_searches),
    }
    if kind < 5 {
        add(&mut grown.input);
    }
    grown
}

proptest! {
    #[test]
    fn more_never_costs_less(card in cards(), usage in counts(4000), kind in 0..8_usize, more in 0..9000_u64) {
        let prices = Prices { standard: card, batch: None, flex: None, priority: None, search: 7 };
        let (before, after) = (usage, grown(usage, kind, more));
        let cost = |usage| prices.cost(usage, Tier::Standard);
        prop_assert!(cost(&after) >= cost(&before), "{before:?} {after:?}");
    }

    /// What providers say may be wrong in any way; overflow checks are on in tests.
    #[test]
    fn no_usage_is_too_much(card in cards(), usage in counts(u64::MAX), parts in any::<[Option<u64>; 6]>()) {
        let prices = Prices { standard: card, batch: Some(card), flex: None, priority: None, search: u64::MAX };
        let [input, output, cache_read, cache_written, cache_written_1h, audio_input] = parts;
        let wild = Usage { input, output, cache_read, cache_written, cache_written_1h, audio_input, ..usage };
        for tier in [Tier::Standard, Tier::Batch, Tier::Flex, Tier::Priority] {
            let _ = (prices.cost(&usage, tier), prices.cost(&wild, tier));
        }
    }

    #[test]
    fn any_name_can_be_asked_for(name in "[a-z0-9:@/.*-]{0,40}", known in 0..100_usize) {
        let id = &Models::embedded().entries()[known].id;
        let _ = Models::embedded().find(&name);
        let _ = Models::embedded().find(&format!("{id}{name}"));
        let _ = Models::embedded().find(&format!("{name}{id}"));
    }
}
