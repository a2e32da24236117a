//! The list stages, as a function that the verifier walks once and by itself.

use gateway_common::{
    packet::{Address, Family},
    stages::{Judgement, ListStages, Outcome, judge_source},
    verdict::Reason,
};

use crate::{
    maps::{KernelTables, is_near},
    observe::RuleHits,
};

/// Judges sources by the pinned tables.
pub struct InTheKernel {
    /// Bytes of the frame.
    pub length: u64,
}

impl ListStages for InTheKernel {
    #[inline(always)]
    fn judge(&mut self, source: &Address) -> Outcome {
        let words = source.words;
        // Almost no source has a prefix near it, and a call costs more than the look.
        if !is_near(source) {
            return Outcome::Next;
        }
        let high = (words[0] as u64) << 32 | words[1] as u64;
        let low = (words[2] as u64) << 32 | words[3] as u64;
        let number = judge_listed(source.family as u32, high, low, self.length);
        let judgement = Judgement { reason: reason_of((number >> 32) as u8), rule: number as u32 };
        match number >> 40 {
            0 => Outcome::Next,
            1 => Outcome::Shadow(judgement),
            _ => Outcome::Decided(judgement),
        }
    }
}

/// A reason that the list stages give.
#[inline(always)]
fn reason_of(number: u8) -> Reason {
    match number as u32 {
        number if number == Reason::AllowList as u32 => Reason::AllowList,
        number if number == Reason::BanShadow as u32 => Reason::BanShadow,
        number if number == Reason::DenyShadow as u32 => Reason::DenyShadow,
        number if number == Reason::BanList as u32 => Reason::BanList,
        _ => Reason::DenyList,
    }
}

/// The list stages over the tables in force: [`Outcome::to_number`]. A global function: the verifier knows
/// nothing of its arguments but that they are numbers, and so walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_listed(family: u32, high: u64, low: u64, length: u64) -> u64 {
    let words = [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32];
    let family = if family == Family::V4 as u32 { Family::V4 } else { Family::V6 };
    let outcome = judge_source(&Address { family, words }, &KernelTables, &mut RuleHits { length });
    outcome.to_number()
}
