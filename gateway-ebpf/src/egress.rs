//! Remembers what the host sends, so that answers to it pass where `kernel.default` is `drop`. It decides about
//! no packet: every one goes on to the next program, or out.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use gateway_common::{
    flows::remember,
    packet::{Headers, parse},
};

use crate::{frame::LinearFrame, maps::KernelFlows};

/// Bytes that are made linear where fewer are: Ethernet, a tag, IPv6, a fragment header and TCP, and some
/// more. The stack's own packets have their headers in the linear part; what a raw socket or a tunnel sends
/// may not.
const HEADER_BYTES: u32 = 128;

/// Sees every packet that leaves an interface. `TC_ACT_UNSPEC` is what TCX calls `TCX_NEXT`.
#[classifier]
pub fn gateway_egress(ctx: TcContext) -> i32 {
    let linear = (ctx.data_end() - ctx.data()) as u32;
    let wanted = if ctx.len() < HEADER_BYTES { ctx.len() } else { HEADER_BYTES };
    if linear < wanted && ctx.pull_data(wanted).is_err() {
        return TC_ACT_UNSPEC;
    }
    let frame = LinearFrame::new(&ctx);
    let mut headers = Headers::BLANK;
    if parse(&frame, &mut headers).is_ok() {
        remember(&frame, &headers, &KernelFlows);
    }
    TC_ACT_UNSPEC
}
