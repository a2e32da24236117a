//! Sources that are dropped until somebody says otherwise.

use super::{Near, Observer, Outcome, drop_if_listed};
use crate::abi::List;
use crate::table::Lines;
use crate::verdict::Reason;

/// Drops a denied source.
#[inline(always)]
pub(super) fn judge<L: Lines + Copy>(near: &Near<L>, observer: &mut impl Observer) -> Outcome {
    drop_if_listed(List::Deny, (Reason::DenyList, Reason::DenyShadow), near, observer)
}
