//! The end of the chain: the packet passes, and the reason says what was peculiar about it.

use super::{Judgement, Outcome};
use crate::packet::Packet;
use crate::verdict::Reason;

/// A shadow entry is the reason an operator wants to see first.
#[inline(always)]
pub(super) const fn judge(packet: &Packet, listed: Outcome) -> Judgement {
    match listed {
        Outcome::Shadow(judgement) => judgement,
        _ if packet.fragment.is_later() => Judgement::without_rule(Reason::Fragment),
        _ => Judgement::without_rule(Reason::NoMatch),
    }
}
