//! Tokens.

/// What a request cost, in tokens. Totals include their parts, whatever the dialect: OpenAI and Gemini count cached
/// tokens among the input, Anthropic beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All input: fresh, read from a cache and written to one.
    pub input: Option<u64>,
    /// All output, reasoning included.
    pub output: Option<u64>,
    /// Of the input, read from a cache.
    pub cache_read: Option<u64>,
    /// Of the input, written to a cache.
    pub cache_written: Option<u64>,
    /// Of what was written, kept for an hour.
    pub cache_written_1h: Option<u64>,
    /// Of the output, reasoning.
    pub reasoning: Option<u64>,
    /// Of the input, sound.
    pub audio_input: Option<u64>,
    /// Of the output, sound.
    pub audio_output: Option<u64>,
    /// Of the output, accepted from a prediction.
    pub prediction_accepted: Option<u64>,
    /// Of the output, rejected from a prediction.
    pub prediction_rejected: Option<u64>,
    /// Of the input, prompts of the provider's own tools (Gemini).
    pub tool_prompt: Option<u64>,
    /// Searches that the provider made (Anthropic).
    pub web_searches: Option<u64>,
}

impl Usage {
    /// Later figures replace earlier ones; what they leave out stays.
    pub fn update(&mut self, later: &Self) {
        let Self {
            input,
            output,
            cache_read,
            cache_written,
            cache_written_1h,
            reasoning,
            audio_input,
            audio_output,
            prediction_accepted,
            prediction_rejected,
            tool_prompt,
            web_searches,
        } = *later;
        for (mine, theirs) in [
            (&mut self.input, input),
            (&mut self.output, output),
            (&mut self.cache_read, cache_read),
            (&mut self.cache_written, cache_written),
            (&mut self.cache_written_1h, cache_written_1h),
            (&mut self.reasoning, reasoning),
            (&mut self.audio_input, audio_input),
            (&mut self.audio_output, audio_output),
            (&mut self.prediction_accepted, prediction_accepted),
            (&mut self.prediction_rejected, prediction_rejected),
            (&mut self.tool_prompt, tool_prompt),
            (&mut self.web_searches, web_searches),
        ] {
            *mine = theirs.or(*mine);
        }
    }

    /// Input and output together, as far as they are known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.input.unwrap_or(0).saturating_add(self.output.unwrap_or(0))
    }

    /// The input that is neither read from a cache nor written to one: what Anthropic calls `input_tokens`.
    #[must_use]
    pub fn fresh_input(&self) -> Option<u64> {
        let cached = self.cache_read.unwrap_or(0).saturating_add(self.cache_written.unwrap_or(0));
        self.input.map(|input| input.saturating_sub(cached))
    }
}
