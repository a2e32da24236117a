//! Lets aya copy the map types to and from the kernel as bytes.
#![allow(unsafe_code)]

use super::{Counter, Flow, FlowKey, Interface, RuleCounter, RuleRecord, Settings, Source};

// SAFETY: as for all of these, `repr(C)`, made of integers only, and their sizes are asserted to leave no padding.
unsafe impl aya::Pod for RuleRecord {}
// SAFETY: as above.
unsafe impl aya::Pod for Counter {}
// SAFETY: as above.
unsafe impl aya::Pod for RuleCounter {}
// SAFETY: as above.
unsafe impl aya::Pod for Interface {}
// SAFETY: as above.
unsafe impl aya::Pod for Settings {}
// SAFETY: as above.
unsafe impl aya::Pod for Source {}
// SAFETY: as above.
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Flow {}
