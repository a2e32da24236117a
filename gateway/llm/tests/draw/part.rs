//! Pieces of content.

use gateway_llm::dialect::Dialect;
use gateway_llm::loss::What;
use gateway_llm::neutral::{CacheControl, Citation, Part, PartKind, Signature, Source, State};

use super::Draw;

impl Draw<'_> {
    /// Where content is.
    fn source(&mut self, media_type: &'static str, may_be: &'static [What]) -> Source<'static> {
        match self.below(3) {
            0 => Source::Data { media_type: media_type.into(), data: self.mark(may_be).into() },
            1 => Source::Url {
                url: format!("https://example.com/{}", self.mark(may_be)).into(),
                media_type: None,
            },
            _ => Source::File { id: self.mark(may_be).into(), dialect: self.pick(&Dialect::ALL) },
        }
    }

    /// Words.
    pub(crate) fn text(&mut self) -> Part<'static> {
        let text = self.mark(&[]);
        Part { kind: PartKind::Text { text: text.into(), citations: Vec::new() }, state: self.marked_state() }
    }

    fn marked_state(&mut self) -> State<'static> {
        State { cache: self.cache(5), signature: None, native: self.natives() }
    }

    /// A cache mark.
    pub(crate) fn cache(&mut self, of: u8) -> Option<CacheControl<'static>> {
        self.some(of, |draw| {
            let raw = draw.pick(&[r#"{"type":"ephemeral"}"#, r#"{"type":"ephemeral","ttl":"1h"}"#]);
            CacheControl { raw: raw.into() }
        })
    }

    /// What somebody signed.
    pub(crate) fn signature(&mut self) -> Signature<'static> {
        let value = self.mark(&[What::Signature, What::ReasoningBlock, What::Reasoning]);
        Signature { by: self.pick(&Dialect::ALL), value: value.into() }
    }

    /// What users say.
    pub(crate) fn user_part(&mut self) -> Part<'static> {
        let kind = match self.below(8) {
            0..=3 => return self.text(),
            4 => {
                const LOST: &[What] = &[What::Image];
                let source = self.source("image/png", LOST);
                let detail = self.some(3, |draw| draw.pick(&["low", "high", "auto"]).into());
                PartKind::Image { source, detail }
            }
            5 => {
                const LOST: &[What] = &[What::Document];
                const DETAIL: &[What] = &[What::Document, What::PartDetail];
                let source = match self.below(4) {
                    3 => Source::Text { text: self.mark(LOST).into() },
                    _ => self.source("application/pdf", LOST),
                };
                let name = self.some(2, |draw| format!("{}.pdf", draw.mark(DETAIL)).into());
                let context = self.some(3, |draw| draw.mark(DETAIL).into());
                let cite = self.some(3, |draw| draw.chance(2));
                PartKind::Document { source, name, context, cite }
            }
            6 => {
                const LOST: &[What] = &[What::Audio];
                let data = self.mark(LOST).into();
                let source = Source::Data { media_type: "audio/wav".into(), data };
                PartKind::Audio { source, transcript: None }
            }
            _ => PartKind::Video { source: self.source("video/mp4", &[What::Video]) },
        };
        // What a lost picture has beside it is lost with it: only texts have more.
        Part { kind, state: State { cache: self.cache(5), ..State::default() } }
    }

    /// Thoughts, as they are given back.
    pub(crate) fn thinking(&mut self, lost: &'static [What]) -> Part<'static> {
        let is_redacted = self.chance(5);
        let text = if is_redacted { String::new() } else { self.mark(lost) };
        let is_summary = self.chance(3);
        let kind = PartKind::Thinking { text: text.into(), is_summary, is_redacted, id: None };
        let is_signed = is_redacted || self.chance(2);
        let signature = is_signed.then(|| self.signature());
        Part { kind, state: State { signature, ..State::default() } }
    }

    /// A block of the provider's own.
    pub(crate) fn native_part(&mut self) -> Part<'static> {
        let dialect = self.pick(&Dialect::ALL);
        let value = self.mark(&[What::UnknownPart, What::ProviderTool]);
        if let Some(mark) = self.marks.last_mut() {
            mark.is_read = false;
        }
        let raw = match dialect {
            Dialect::Gemini => format!(r#"{{"executableCode":{{"language":"PYTHON","code":"{value}"}}}}"#),
            Dialect::AnthropicMessages => {
                format!(
                    r#"{{"type":"server_tool_use","id":"srvtoolu_{value}","name":"web_search","input":{{}}}}"#
                )
            }
            Dialect::OpenaiResponses => {
                format!(r#"{{"type":"web_search_call","id":"ws_{value}","status":"completed"}}"#)
            }
            Dialect::OpenaiChat => format!(r#"{{"type":"mystery","value":"{value}"}}"#),
        };
        let kind = match dialect {
            Dialect::Gemini => "executableCode",
            Dialect::AnthropicMessages => "server_tool_use",
            Dialect::OpenaiResponses => "web_search_call",
            Dialect::OpenaiChat => "mystery",
        };
        Part::new(PartKind::Native { dialect, kind: kind.into(), raw: raw.into() })
    }

    /// A call, with the identity and name that its result has to have, and whether it is custom.
    pub(crate) fn call(&mut self, custom: &'static [What]) -> (Part<'static>, String, String, bool) {
        let is_custom = self.chance(6);
        let lost = if is_custom { custom } else { &[] };
        // Gemini knows calls by their place, and others bound what an identity looks like.
        let id = format!("call_{:04}abcd", self.marks.len());
        let name = self.mark(lost);
        let argument = self.mark(lost);
        let arguments = if is_custom { argument } else { format!(r#"{{"a":"{argument}"}}"#) };
        let kind = PartKind::ToolCall {
            id: id.clone().into(),
            name: name.clone().into(),
            arguments: arguments.into(),
            is_custom,
        };
        let signature = self.some(5, Self::signature);
        let part = Part { kind, state: State { signature, ..State::default() } };
        (part, id, name, is_custom)
    }

    /// Where a statement comes from.
    pub(crate) fn citation(&mut self) -> Citation<'static> {
        const LOST: &[What] = &[What::Citation];
        Citation {
            url: Some(format!("https://example.com/{}", self.mark(LOST)).into()),
            title: Some(self.mark(LOST).into()),
            quote: None,
            range: Some((0, 3)),
            native: None,
        }
    }
}
