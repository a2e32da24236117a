//! Sources that are dropped for a time.

use super::{Observer, Outcome, Tables, drop_if_listed};
use crate::abi::List;
use crate::packet::Packet;
use crate::verdict::Reason;

/// Drops a banned source.
#[inline(always)]
pub(super) fn judge(packet: &Packet, tables: &impl Tables, observer: &mut impl Observer) -> Outcome {
    drop_if_listed(List::Ban, (Reason::BanList, Reason::BanShadow), packet, tables, observer)
}
