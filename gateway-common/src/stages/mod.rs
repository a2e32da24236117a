//! What a packet goes through, in order: parse → allow → ban → deny → default → pass.
//!
//! [`judge`] owns the order and the branches; a stage's file says what one stage does. The tables and the
//! clock are behind [`Tables`], so the kernel answers from its maps, the fallback from its own tables, and
//! a test from a list of three.

mod allow;
mod ban;
mod deny;
mod pass;
mod replies;

use core::borrow::Borrow;

use crate::abi::{Entry, List, NO_RULE};
use crate::flows::Flows;
use crate::packet::{Address, Frame, Headers, Packet, parse};
use crate::verdict::{Reason, Verdict};

/// Where the stages look things up.
pub trait Tables: Flows {
    /// An entry, or a reference to one: in the kernel a lookup gives a pointer into the map.
    type Found: Borrow<Entry>;
    /// The entry with the longest prefix, of at most `max_len` bits, that covers the address.
    fn longest_match(&self, list: List, address: &Address, max_len: u32) -> Option<Self::Found>;
    /// Whether what no entry names is dropped.
    fn default_drop(&self) -> bool;
    /// Boot clock in nanoseconds. Called only when an entry with a time to live, or a flow, matched.
    fn now_ns(&self) -> u64;
}

/// Whoever wants to know how a judgement came about: the counters of rules, or `explain`.
pub trait Observer {
    /// A stage found an entry that holds.
    fn matched(&mut self, _list: List, _entry: &Entry) {}
    /// A stage is done.
    fn left(&mut self, _stage: Stage, _outcome: Outcome) {}
}

impl Observer for () {}

/// The stages, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reads the headers.
    Parse,
    /// Lets named sources through.
    Allow,
    /// Drops sources that are banned for a time.
    Ban,
    /// Drops named sources.
    Deny,
    /// Where that is the default, drops what this host did not ask for.
    Default,
    /// Lets the rest through.
    Pass,
}

impl Stage {
    /// Its name in `explain`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Allow => "allow",
            Self::Ban => "ban",
            Self::Deny => "deny",
            Self::Default => "default",
            Self::Pass => "pass",
        }
    }
}

/// What one stage says.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Ask the next stage.
    Next,
    /// An entry in shadow mode matched: remember it, and ask the next stage.
    Shadow(Judgement),
    /// It is decided.
    Decided(Judgement),
}

/// What came of a packet.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Why; the verdict follows from it.
    pub reason: Reason,
    /// The rule that decided, or [`NO_RULE`].
    pub rule: u32,
}

impl Judgement {
    /// Decided without a rule.
    #[inline(always)]
    pub const fn without_rule(reason: Reason) -> Self {
        Self { reason, rule: NO_RULE }
    }

    /// What happens to the packet.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }
}

/// Judges a frame; what was read of it is left in `headers`.
#[inline(always)]
pub fn judge(
    frame: &impl Frame,
    headers: &mut Headers,
    tables: &impl Tables,
    observer: &mut impl Observer,
) -> Judgement {
    match parse(frame, headers) {
        Ok(()) => {
            observer.left(Stage::Parse, Outcome::Next);
            judge_read(frame, &headers.packet, tables, observer)
        }
        Err(reason) => {
            let judgement = Judgement::without_rule(reason);
            observer.left(Stage::Parse, Outcome::Decided(judgement));
            judgement
        }
    }
}

/// Judges a packet of which only the headers are known: the stages behind parsing. Without a frame it
/// answers nothing.
#[inline(always)]
pub fn judge_packet(packet: &Packet, tables: &impl Tables, observer: &mut impl Observer) -> Judgement {
    judge_read(&NO_FRAME, packet, tables, observer)
}

const NO_FRAME: &[u8] = &[];

#[inline(always)]
fn judge_read(
    frame: &impl Frame,
    packet: &Packet,
    tables: &impl Tables,
    observer: &mut impl Observer,
) -> Judgement {
    let outcome = allow::judge(packet, tables, observer);
    observer.left(Stage::Allow, outcome);
    if let Outcome::Decided(judgement) = outcome {
        return judgement;
    }
    let banned = ban::judge(packet, tables, observer);
    observer.left(Stage::Ban, banned);
    if let Outcome::Decided(judgement) = banned {
        return judgement;
    }
    let denied = deny::judge(packet, tables, observer);
    observer.left(Stage::Deny, denied);
    if let Outcome::Decided(judgement) = denied {
        return judgement;
    }
    let default = replies::judge(frame, tables);
    observer.left(Stage::Default, default);
    if let Outcome::Decided(judgement) = default {
        return judgement;
    }
    let judgement = pass::judge(packet, banned, denied);
    observer.left(Stage::Pass, Outcome::Decided(judgement));
    judgement
}

/// Expired entries, one inside the other, that a lookup sees through: every length of IPv4. All 129 of IPv6
/// would double what the verifier walks, and so the time to start; the agent removes expired entries within
/// seconds, so that 33 of them around one address at one moment is an accident that ends by itself.
pub const MAX_EXPIRED_NESTED: usize = 32;

/// The entry of a list that holds for an address: the most specific one that has not expired.
///
/// An expired entry must not hide a shorter prefix that still holds, so the search goes on with the next
/// shorter length, over at most [`MAX_EXPIRED_NESTED`] entries.
#[inline(always)]
fn find<T: Tables>(list: List, address: &Address, tables: &T) -> Option<T::Found> {
    let mut max_len = address.max_prefix_len();
    for _ in 0..=MAX_EXPIRED_NESTED {
        let found = tables.longest_match(list, address, max_len)?;
        let entry = found.borrow();
        if !entry.has_expired(|| tables.now_ns()) {
            return Some(found);
        }
        if entry.prefix_len == 0 || u32::from(entry.prefix_len) > max_len {
            return None;
        }
        max_len = u32::from(entry.prefix_len) - 1;
    }
    None
}

/// What a list that drops says: the stages ban and deny differ only in their list and reasons.
#[inline(always)]
fn drop_if_listed(
    list: List,
    reasons: (Reason, Reason),
    packet: &Packet,
    tables: &impl Tables,
    observer: &mut impl Observer,
) -> Outcome {
    let Some(found) = find(list, &packet.source, tables) else { return Outcome::Next };
    let entry = found.borrow();
    observer.matched(list, entry);
    let (dropped, shadowed) = reasons;
    if entry.is_shadow() {
        Outcome::Shadow(Judgement { reason: shadowed, rule: entry.rule })
    } else {
        Outcome::Decided(Judgement { reason: dropped, rule: entry.rule })
    }
}
