//! What tokens cost, in whole micro-dollars.
//!
//! Prices are micro-dollars for a million tokens: 3 dollars are 3000000. Floats would make sums of money depend on the
//! order in which they are added.

use crate::neutral::Usage;

/// A tier of service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The usual one.
    #[default]
    Standard,
    /// Within a day.
    Batch,
    /// When there is room.
    Flex,
    /// Before others.
    Priority,
}

impl Tier {
    /// The tier of a provider's word for it, as a reply has it.
    #[must_use]
    pub fn of(word: Option<&str>) -> Self {
        match word {
            Some("batch") => Self::Batch,
            Some("flex") => Self::Flex,
            Some("priority") => Self::Priority,
            _ => Self::Standard,
        }
    }
}

/// What a model costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    /// In the standard tier.
    pub standard: Card,
    /// In other tiers; where there is none, the standard one counts.
    pub batch: Option<Card>,
    /// See [`Tier::Flex`].
    pub flex: Option<Card>,
    /// See [`Tier::Priority`].
    pub priority: Option<Card>,
    /// Each search of the provider's, in micro-dollars.
    pub search: u64,
}

/// What tokens cost in one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// As a rule.
    pub rates: Rates,
    /// From so many tokens of input on, not included: then all tokens cost this, and not only those above.
    pub above: Option<(u64, Rates)>,
}

/// Micro-dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Input that no cache knows.
    pub input: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// Input that a cache knows.
    pub cache_read: u64,
    /// Input that is written to a cache, for five minutes.
    pub cache_write_5m: u64,
    /// The same, for an hour.
    pub cache_write_1h: u64,
    /// Input that is sound.
    pub audio_input: u64,
    /// Output that is sound.
    pub audio_output: u64,
}

/// The largest price: a dollar a token.
pub(super) const MAX_RATE: u64 = 1_000_000_000_000;

const MILLION: u128 = 1_000_000;

// What a request costs at most is summed in 128 bits: seven counts of tokens at the largest price.
const _: () = assert!((u64::MAX as u128) * (MAX_RATE as u128) < u128::MAX / 8);

impl Prices {
    /// What a request cost, in micro-dollars, rounded up so that nothing is free that is not.
    #[must_use]
    pub fn cost(&self, usage: &Usage, tier: Tier) -> u64 {
        let card = match tier {
            Tier::Standard => None,
            Tier::Batch => self.batch.as_ref(),
            Tier::Flex => self.flex.as_ref(),
            Tier::Priority => self.priority.as_ref(),
        };
        let tokens = card.unwrap_or(&self.standard).millionths(usage).div_ceil(MILLION);
        let searches = u128::from(usage.web_searches.unwrap_or(0)) * u128::from(self.search);
        u64::try_from(tokens + searches).unwrap_or(u64::MAX)
    }
}

impl Card {
    /// Millionths of micro-dollars.
    fn millionths(&self, usage: &Usage) -> u128 {
        let input = usage.input.unwrap_or(0);
        let output = usage.output.unwrap_or(0);
        let rates = match &self.above {
            Some((tokens, above)) if input > *tokens => above,
            _ => &self.rates,
        };
        // Providers' parts may be more than their sum; none is counted twice, and none below zero.
        let mut fresh = input;
        let mut of_input = |tokens: Option<u64>| {
            let tokens = tokens.unwrap_or(0).min(fresh);
            fresh -= tokens;
            tokens
        };
        let read = of_input(usage.cache_read);
        let written_1h =
            of_input(usage.cache_written_1h.map(|hour| hour.min(usage.cache_written.unwrap_or(hour))));
        let written_5m = of_input(usage.cache_written.map(|all| all.saturating_sub(written_1h)));
        let audio_input = of_input(usage.audio_input);
        let audio_output = usage.audio_output.unwrap_or(0).min(output);
        [
            (fresh, rates.input),
            (read, rates.cache_read),
            (written_5m, rates.cache_write_5m),
            (written_1h, rates.cache_write_1h),
            (audio_input, rates.audio_input),
            (audio_output, rates.audio_output),
            (output - audio_output, rates.output),
        ]
        .into_iter()
        .map(|(tokens, rate)| u128::from(tokens) * u128::from(rate))
        .sum()
    }
}
