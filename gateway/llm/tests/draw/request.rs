//! Requests.

use gateway_llm::json::Number;
use gateway_llm::loss::What;
use gateway_llm::neutral::{
    Format, LogProbabilities, Part, PartKind, Reasoning, Request, Role, Sampling, Text, Tool, ToolChoice,
    ToolKind, Turn,
};

use super::Draw;

const CUSTOM: &[What] = &[What::CustomTool];

impl Draw<'_> {
    /// A request.
    pub(crate) fn request(&mut self) -> Request<'static> {
        let mut turns = Vec::new();
        let instructions = self.below(3);
        for _ in 0..instructions {
            let role = self.pick(&[Role::System, Role::Developer]);
            let text = self.text();
            turns.push(self.turn(role, vec![text]));
        }
        let exchanges = 1 + self.below(3);
        for _ in 0..exchanges {
            let mut parts = vec![self.text()];
            parts.extend(self.many(2, Self::user_part));
            turns.push(self.turn(Role::User, parts));
            if self.chance(2) {
                self.answer(&mut turns);
            }
        }
        if turns.last().is_some_and(|turn| turn.role == Role::Assistant) {
            let text = self.text();
            turns.push(self.turn(Role::User, vec![text]));
        }
        let tools = self.many(3, Self::tool);
        let tool_choice = if tools.is_empty() { None } else { self.some(3, |draw| draw.choice(&tools)) };
        let may_call = !tools.is_empty() && tool_choice != Some(ToolChoice::None);
        let stream = self.chance(4);
        Request {
            model: "some-model".into(),
            turns,
            tool_choice,
            // Where none may be called, nothing depends on it.
            parallel_tool_calls: if may_call { self.some(4, |draw| draw.chance(2)) } else { None },
            tools,
            format: self.some(4, Self::format),
            max_output_tokens: self.some(3, |draw| 2000 + draw.below(100) as u64),
            sampling: self.sampling(),
            reasoning: self.some(5, Self::reasoning),
            candidates: self.some(9, |draw| 1 + draw.below(3) as u64),
            stop: self.some(4, |draw| vec![draw.mark(&[What::StopSequences]).into()]).unwrap_or_default(),
            modalities: Vec::new(),
            verbosity: self.some(8, |draw| draw.pick(&["low", "medium", "high"]).into()),
            stream,
            stream_usage: stream.then_some(true),
            metadata: self
                .some(8, |draw| vec![("key".into(), draw.mark(&[What::Metadata]).into())])
                .unwrap_or_default(),
            user: self.some(6, |draw| draw.mark(&[What::Metadata]).into()),
            service_tier: self.some(8, |draw| draw.pick(&["auto", "default", "flex", "priority"]).into()),
            store: self.some(8, |draw| draw.chance(2)),
            previous_response: self.some(9, |draw| draw.mark(&[What::Stored]).into()),
            prompt_cache_key: self.some(9, |draw| draw.mark(&[What::CacheControl, What::Metadata]).into()),
            cache: self.cache(9),
            echo: Vec::new(),
            native: self.natives(),
        }
    }

    fn turn(&mut self, role: Role, parts: Vec<Part<'static>>) -> Turn<'static> {
        let name = if role == Role::User {
            self.some(6, |draw| draw.mark(&[What::SpeakerName]).into())
        } else {
            None
        };
        let native = if role == Role::Tool { Vec::new() } else { self.natives() };
        Turn { role, name, parts, native }
    }

    /// What the model said, and what its tools did.
    fn answer(&mut self, turns: &mut Vec<Turn<'static>>) {
        let mut parts = Vec::new();
        if self.chance(4) {
            parts.push(self.thinking(&[What::Reasoning, What::ReasoningBlock]));
        }
        parts.push(match self.below(8) {
            7 => Part::new(PartKind::Refusal { text: self.mark(&[What::Refusal]).into() }),
            6 => self.native_part(),
            _ => self.text(),
        });
        let calls = self.many(2, |draw| draw.call(CUSTOM));
        let mut results = Vec::new();
        for (part, id, name, is_custom) in calls {
            parts.push(part);
            let lost = if is_custom { CUSTOM } else { &[] };
            let mut content = vec![Part::text(self.mark(lost))];
            if self.chance(6) {
                content.push(self.user_part());
            }
            let is_error = self.some(4, |draw| draw.chance(2));
            let name = self.some(2, |_| name.into());
            let kind = PartKind::ToolResult { id: id.into(), name, content, is_error, is_custom };
            results.push(Turn::new(Role::Tool, vec![Part::new(kind)]));
        }
        turns.push(self.turn(Role::Assistant, parts));
        turns.extend(results);
    }

    fn tool(&mut self) -> Tool<'static> {
        let kind = match self.below(6) {
            0..=3 => {
                let name = self.mark(&[]).into();
                let description = self.some(2, |draw| draw.mark(&[]).into());
                let inner = self.mark(&[What::SchemaKeyword]);
                let schema = format!(
                    r#"{{"type":"object","properties":{{"a":{{"type":"string","description":"{inner}"}}}},"required":["a"],"additionalProperties":false}}"#
                );
                ToolKind::Function {
                    name,
                    description,
                    schema: Some(schema.into()),
                    strict: self.some(3, |draw| draw.chance(2)),
                }
            }
            4 => ToolKind::Custom {
                name: self.mark(CUSTOM).into(),
                description: self.some(2, |draw| draw.mark(CUSTOM).into()),
                format: None,
            },
            _ => {
                let dialect = self.pick(&gateway_llm::dialect::Dialect::ALL);
                let value = self.mark(&[What::ProviderTool]);
                if let Some(mark) = self.marks.last_mut() {
                    mark.is_read = false;
                }
                let kind = format!("tool_{value}");
                let raw = match dialect {
                    gateway_llm::dialect::Dialect::Gemini => format!(r#"{{"{kind}":{{}}}}"#),
                    _ => format!(r#"{{"type":"{kind}","name":"x"}}"#),
                };
                ToolKind::Provider { dialect, kind: kind.into(), raw: raw.into() }
            }
        };
        let native = if matches!(kind, ToolKind::Function { .. }) { self.natives() } else { Vec::new() };
        Tool { kind, cache: self.cache(6), native }
    }

    fn choice(&mut self, tools: &[Tool<'static>]) -> ToolChoice<'static> {
        let names: Option<Vec<Text<'static>>> = tools
            .iter()
            .map(|tool| match &tool.kind {
                ToolKind::Function { name, .. } => Some(name.clone()),
                _ => None,
            })
            .collect();
        match (self.below(5), names) {
            (1, _) => ToolChoice::None,
            (2, _) => ToolChoice::Required,
            (3, Some(mut names)) => names.pop().map_or(ToolChoice::Auto, ToolChoice::Named),
            // All of them: what is not allowed may be left out, and would seem to be lost.
            (4, Some(names)) => ToolChoice::Allowed { required: self.chance(2), names },
            _ => ToolChoice::Auto,
        }
    }

    fn format(&mut self) -> Format<'static> {
        match self.below(3) {
            0 => Format::Text,
            1 => Format::Json,
            _ => {
                const LOST: &[What] = &[What::OutputFormat];
                let inner = self.mark(&[What::OutputFormat, What::SchemaKeyword]);
                let schema = format!(
                    r#"{{"type":"object","properties":{{"a":{{"type":"string","description":"{inner}"}}}},"required":["a"],"additionalProperties":false}}"#
                );
                Format::Schema {
                    // A label that OpenAI asks for and that nothing depends on: who knows none loses none.
                    name: Some("answer".into()),
                    description: self.some(3, |draw| draw.mark(LOST).into()),
                    schema: schema.into(),
                    strict: self.some(2, |draw| draw.chance(2)),
                }
            }
        }
    }

    fn sampling(&mut self) -> Sampling<'static> {
        let mut number =
            |of: u8, texts: &[&'static str]| self.some(of, |draw| Number::from_text(draw.pick(texts)));
        Sampling {
            temperature: number(4, &["0", "0.5", "1.0"]),
            top_p: number(5, &["0.9", "0.5"]),
            top_k: number(6, &["40"]),
            presence_penalty: number(8, &["0.5", "-1"]),
            frequency_penalty: number(8, &["0.25"]),
            seed: number(7, &["7", "42"]),
            logit_bias: self.some(12, |_| r#"{"50256":-100}"#.into()),
            log_probabilities: self
                .some(9, |draw| LogProbabilities { alternatives: draw.some(2, |draw| draw.below(5) as u64) }),
        }
    }

    fn reasoning(&mut self) -> Reasoning<'static> {
        match self.below(4) {
            0 => Reasoning {
                effort: Some(self.pick(&["low", "medium", "high"]).into()),
                ..Reasoning::default()
            },
            1 => Reasoning {
                enabled: Some(true),
                budget: Some(1024 + self.below(200) as u64),
                ..Reasoning::default()
            },
            2 => Reasoning { enabled: Some(false), ..Reasoning::default() },
            _ => Reasoning {
                enabled: Some(true),
                summary: Some("auto".into()),
                effort: Some("high".into()),
                ..Reasoning::default()
            },
        }
    }
}
