//! What a packet goes through, in order: parse → allow → ban → deny → default → pass.
//!
//! [`judge`] owns the order and the branches; a stage's file says what one stage does. The tables are behind
//! [`Tables`], so the kernel answers from its maps, and the fallback and the tests from memory of their own.

mod allow;
mod ban;
mod deny;
mod pass;
mod replies;

pub use replies::judge_unlisted;

use crate::abi::{List, NO_RULE};
use crate::flows::Flows;
use crate::packet::{Address, Family, Frame, Headers, Packet, parse};
use crate::table::{Hints, Hit, Lines, hints, set_of};
use crate::verdict::{Reason, Verdict};

/// Where the list stages look things up. Each table is asked for once a packet, so that a packet sees one
/// generation of the lists from its first stage to its last.
pub trait Tables {
    /// A table's lines.
    type Lines: Lines + Copy;
    /// What the tables in force have near a source, as [`crate::table::near_v4`] says it: almost always nothing.
    fn near(&self, source: &Address) -> u32;
    /// The table of entries made singly (bans, and what operators add and delete), and the one of the lists.
    fn in_force(&self) -> Option<(Self::Lines, Self::Lines)>;
}

/// An entry that covers a packet's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The list it stands in.
    pub list: List,
    /// Counted, not decided by.
    pub shadow: bool,
    /// Its prefix and rule.
    pub hit: Hit,
}

/// Whoever wants to know how a judgement came about: the counters of rules, or `explain`.
pub trait Observer {
    /// A stage found an entry that holds.
    fn matched(&mut self, _found: &Match) {}
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

impl Outcome {
    const SHADOW: u64 = 1 << 40;
    const DECIDED: u64 = 2 << 40;

    /// In one number, for a function of the kernel's program, which returns nothing else.
    #[inline(always)]
    pub const fn to_number(self) -> u64 {
        match self {
            Self::Next => 0,
            Self::Shadow(judgement) => Self::SHADOW | judgement.to_number(),
            Self::Decided(judgement) => Self::DECIDED | judgement.to_number(),
        }
    }
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

    /// The rule and, above it, the reason.
    #[inline(always)]
    const fn to_number(self) -> u64 {
        self.rule as u64 | (self.reason as u64) << 32
    }

    /// What happens to the packet.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }
}

/// Whoever says what the stages behind the headers say, and looks on at the others. The kernel's program has a
/// function of its own for the lists and one for the default, which the verifier walks once; in line it would
/// walk them once for each way through the headers.
pub trait Stages {
    /// The headers are read, as far as that went.
    fn read(&mut self, _headers: &Headers) {}
    /// What allow, ban and deny say of a source.
    fn judge_source(&mut self, source: &Address) -> Outcome;
    /// What the default says of a packet on which they decide nothing.
    fn judge_default(&mut self, frame: &impl Frame) -> Outcome;
    /// A stage other than allow, ban and deny is done.
    fn left(&mut self, _stage: Stage, _outcome: Outcome) {}
}

/// Judges by tables, in line.
#[derive(Debug)]
pub struct Inline<'a, T, F, O> {
    /// Where to look a source up.
    pub tables: &'a T,
    /// Where to look up what the host has sent, if the default is to drop.
    pub flows: Option<&'a F>,
    /// Whom to tell.
    pub observer: &'a mut O,
}

impl<T: Tables, F: Flows, O: Observer> Stages for Inline<'_, T, F, O> {
    fn judge_source(&mut self, source: &Address) -> Outcome {
        judge_source(source, self.tables, self.observer)
    }

    fn judge_default(&mut self, frame: &impl Frame) -> Outcome {
        match self.flows {
            None => Outcome::Next,
            Some(flows) => Outcome::Decided(Judgement::without_rule(judge_unlisted(frame, flows))),
        }
    }

    fn left(&mut self, stage: Stage, outcome: Outcome) {
        self.observer.left(stage, outcome);
    }
}

/// Judges a frame; what was read of it is left in `headers`.
#[inline(always)]
pub fn judge(frame: &impl Frame, headers: &mut Headers, stages: &mut impl Stages) -> Judgement {
    let parsed = parse(frame, headers);
    stages.read(headers);
    match parsed {
        Ok(()) => {
            stages.left(Stage::Parse, Outcome::Next);
            judge_read(frame, &headers.packet, stages)
        }
        Err(reason) => {
            let judgement = Judgement::without_rule(reason);
            stages.left(Stage::Parse, Outcome::Decided(judgement));
            judgement
        }
    }
}

/// Judges a packet of which only the headers are known: the stages behind parsing. Without a frame it
/// answers nothing.
#[inline(always)]
pub fn judge_packet(packet: &Packet, stages: &mut impl Stages) -> Judgement {
    judge_read(&NO_FRAME, packet, stages)
}

const NO_FRAME: &[u8] = &[];

#[inline(always)]
fn judge_read(frame: &impl Frame, packet: &Packet, stages: &mut impl Stages) -> Judgement {
    let listed = stages.judge_source(&packet.source);
    if let Outcome::Decided(judgement) = listed {
        return judgement;
    }
    let default = stages.judge_default(frame);
    stages.left(Stage::Default, default);
    if let Outcome::Decided(judgement) = default {
        return judgement;
    }
    let judgement = pass::judge(packet, listed);
    stages.left(Stage::Pass, Outcome::Decided(judgement));
    judgement
}

/// Judges a source by the lists, in their order. Of two shadow entries the earlier stage's is what an operator
/// wants to see first.
#[inline(always)]
pub fn judge_source(source: &Address, tables: &impl Tables, observer: &mut impl Observer) -> Outcome {
    // Almost no source has any prefix near it.
    let Some(near) = Near::to(source, tables) else {
        observer.left(Stage::Allow, Outcome::Next);
        observer.left(Stage::Ban, Outcome::Next);
        observer.left(Stage::Deny, Outcome::Next);
        return Outcome::Next;
    };
    let allowed = allow::judge(&near, observer);
    observer.left(Stage::Allow, allowed);
    if matches!(allowed, Outcome::Decided(_)) {
        return allowed;
    }
    let banned = ban::judge(&near, observer);
    observer.left(Stage::Ban, banned);
    if matches!(banned, Outcome::Decided(_)) {
        return banned;
    }
    let denied = deny::judge(&near, observer);
    observer.left(Stage::Deny, denied);
    match (banned, denied) {
        (Outcome::Shadow(_), Outcome::Next | Outcome::Shadow(_)) => banned,
        _ => denied,
    }
}

/// A source, and what the tables have near it.
struct Near<L> {
    family: Family,
    /// IPv4: the address as a number. IPv6: its upper half.
    high: u64,
    low: u64,
    live: L,
    live_hints: Hints,
    lists: L,
    list_hints: Hints,
}

impl<L: Lines + Copy> Near<L> {
    #[inline(always)]
    fn to(source: &Address, tables: &impl Tables<Lines = L>) -> Option<Self> {
        let near = tables.near(source);
        if near == 0 {
            return None;
        }
        let (live, lists) = tables.in_force()?;
        let (high, low) = source.halves();
        let v6 = matches!(source.family, Family::V6);
        let (live_hints, list_hints) = (hints(&live, v6, near), hints(&lists, v6, near));
        Some(Self { family: source.family, high, low, live, live_hints, lists, list_hints })
    }

    /// The entry that holds for the source: the most specific one, and of two equals the one made singly.
    #[inline(always)]
    fn find(&self, list: List, shadow: bool) -> Hit {
        let set = set_of(list, shadow);
        let live = self.search(&self.live, set, self.live_hints);
        // A ban has a time to live, and entries of a list have none.
        if matches!(list, List::Ban) {
            return live;
        }
        live.or_longer(self.search(&self.lists, set, self.list_hints))
    }

    #[inline(always)]
    fn search(&self, lines: &L, set: u32, hints: Hints) -> Hit {
        if !hints.any_in(set) {
            return Hit::NONE;
        }
        match self.family {
            Family::V4 => lines.search_v4(set, self.high as u32, hints),
            Family::V6 => lines.search_v6(set, self.high, self.low, hints),
        }
    }
}

/// What a list that drops says: the stages ban and deny differ only in their list and reasons. An entry in
/// shadow mode never hides one that is enforced.
#[inline(always)]
fn drop_if_listed<L: Lines + Copy>(
    list: List,
    reasons: (Reason, Reason),
    near: &Near<L>,
    observer: &mut impl Observer,
) -> Outcome {
    let (dropped, shadowed) = reasons;
    let hit = near.find(list, false);
    if hit.is_some() {
        observer.matched(&Match { list, shadow: false, hit });
        return Outcome::Decided(Judgement { reason: dropped, rule: hit.rule() });
    }
    let hit = near.find(list, true);
    if hit.is_some() {
        observer.matched(&Match { list, shadow: true, hit });
        return Outcome::Shadow(Judgement { reason: shadowed, rule: hit.rule() });
    }
    Outcome::Next
}
