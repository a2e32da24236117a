//! Sources that are dropped until somebody says otherwise.

use super::{Observer, Outcome, Tables, drop_if_listed};
use crate::abi::List;
use crate::packet::Packet;
use crate::verdict::Reason;

/// Drops a denied source.
#[inline(always)]
pub(super) fn judge(packet: &Packet, tables: &impl Tables, observer: &mut impl Observer) -> Outcome {
    drop_if_listed(List::Deny, (Reason::DenyList, Reason::DenyShadow), packet, tables, observer)
}
