//! The stages behind the headers, as functions that the verifier walks once and by themselves. Each has a stack
//! of its own, too: in line they would not fit into the 512 bytes that a program and what it calls may use.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use gateway_common::{
    abi::Settings,
    packet::{Address, Family, Frame, Headers},
    stages::{Judgement, Outcome, Stages, judge_source, judge_unlisted},
    verdict::Reason,
};

use crate::{
    frame::{LinearFrame, total_len},
    maps::{KernelFlows, KernelTables, near},
    observe::RuleHits,
};

/// Judges by the pinned tables and flows.
pub struct InTheKernel<'a> {
    pub ctx: &'a XdpContext,
    /// Bytes of the frame, when its headers are read.
    pub length: u64,
    pub settings: &'a Settings,
}

impl Stages for InTheKernel<'_> {
    #[inline(always)]
    fn read(&mut self, headers: &Headers) {
        self.length = total_len(self.ctx, headers);
    }

    #[inline(always)]
    fn judge_source(&mut self, source: &Address) -> Outcome {
        // Almost no source has a prefix near it, and a call costs more than the look.
        let near = near(source);
        if near == 0 {
            return Outcome::Next;
        }
        let words = source.words;
        let high = (words[0] as u64) << 32 | words[1] as u64;
        let low = (words[2] as u64) << 32 | words[3] as u64;
        let number = judge_listed(source.family as u32 | near << NEAR_AT, high, low, self.length);
        let judgement = Judgement { reason: reason_of((number >> 32) as u8), rule: number as u32 };
        match number >> 40 {
            0 => Outcome::Next,
            1 => Outcome::Shadow(judgement),
            _ => Outcome::Decided(judgement),
        }
    }

    #[inline(always)]
    fn judge_default(&mut self, _frame: &impl Frame) -> Outcome {
        if self.settings.default_drop == 0 {
            return Outcome::Next;
        }
        Outcome::Decided(Judgement::without_rule(reason_of_default(judge_by_default(self.ctx.ctx))))
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

/// Where the first argument of [`judge_listed`] says what is near, above the family.
const NEAR_AT: u32 = 8;

/// The list stages over the tables in force: [`Outcome::to_number`]. A global function: the verifier knows
/// nothing of its arguments but that they are numbers, and so walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_listed(family_near: u32, high: u64, low: u64, length: u64) -> u64 {
    let words = [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32];
    let family = if family_near & 0xff == Family::V4 as u32 { Family::V4 } else { Family::V6 };
    let tables = KernelTables { near: family_near >> NEAR_AT };
    let outcome = judge_source(&Address { family, words }, &tables, &mut RuleHits { length });
    outcome.to_number()
}

/// A reason that the default gives.
#[inline(always)]
fn reason_of_default(number: u32) -> Reason {
    match number {
        number if number == Reason::Reply as u32 => Reason::Reply,
        number if number == Reason::ReplyError as u32 => Reason::ReplyError,
        number if number == Reason::NeighbourDiscovery as u32 => Reason::NeighbourDiscovery,
        number if number == Reason::DhcpReply as u32 => Reason::DhcpReply,
        _ => Reason::DefaultDrop,
    }
}

/// What the default says of a frame where it is to drop: a [`Reason`]'s number. A global function as well; that
/// its argument is a context, the kernel knows by the name of its type.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_by_default(ctx: *mut xdp_md) -> u32 {
    judge_unlisted(&LinearFrame::new(&XdpContext::new(ctx)), &KernelFlows) as u32
}
