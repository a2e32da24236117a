//! Sources that pass whatever the later lists say.

use core::borrow::Borrow;

use super::{Judgement, Observer, Outcome, Tables, find};
use crate::abi::List;
use crate::packet::Packet;
use crate::verdict::Reason;

/// An allow entry in shadow mode changes nothing, so it only counts.
#[inline(always)]
pub(super) fn judge(packet: &Packet, tables: &impl Tables, observer: &mut impl Observer) -> Outcome {
    let Some(found) = find(List::Allow, &packet.source, tables) else { return Outcome::Next };
    let entry = found.borrow();
    observer.matched(List::Allow, entry);
    if entry.is_shadow() {
        return Outcome::Next;
    }
    Outcome::Decided(Judgement { reason: Reason::AllowList, rule: entry.rule })
}
