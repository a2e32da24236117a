//! Sources that are dropped for a time.

use super::{Near, Observer, Outcome, drop_if_listed};
use crate::abi::List;
use crate::table::Lines;
use crate::verdict::Reason;

/// Drops a banned source.
#[inline(always)]
pub(super) fn judge<L: Lines + Copy>(near: &Near<L>, observer: &mut impl Observer) -> Outcome {
    drop_if_listed(List::Ban, (Reason::BanList, Reason::BanShadow), near, observer)
}
