//! Sources that pass whatever the later lists say.

use super::{Judgement, Match, Near, Observer, Outcome};
use crate::abi::List;
use crate::table::Lines;
use crate::verdict::Reason;

/// An allow entry in shadow mode changes nothing, so it only counts.
#[inline(always)]
pub(super) fn judge<L: Lines + Copy>(near: &Near<L>, observer: &mut impl Observer) -> Outcome {
    let hit = near.find(List::Allow, false);
    if hit.is_some() {
        observer.matched(&Match { list: List::Allow, shadow: false, hit });
        return Outcome::Decided(Judgement { reason: Reason::AllowList, rule: hit.rule() });
    }
    let hit = near.find(List::Allow, true);
    if hit.is_some() {
        observer.matched(&Match { list: List::Allow, shadow: true, hit });
    }
    Outcome::Next
}
