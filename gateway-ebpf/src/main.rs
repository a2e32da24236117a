//! The programs that run in the kernel: glue around the pure code of gateway-common.
//!
//! A hook makes a [`frame::LinearFrame`] of its context, lets `gateway_common::stages` judge it against
//! [`maps`], and has [`observe`] count and sample what came of it. Decisions live in gateway-common.
#![no_std]
#![no_main]

mod bench;
mod egress;
mod frame;
mod maps;
mod observe;
mod stages;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use gateway_common::{
    packet::Headers,
    stages::judge,
    verdict::{Reason, Verdict},
};

use crate::{frame::LinearFrame, maps::SETTINGS, observe::record, stages::InTheKernel};

/// Judges every packet of an interface. `frags`: a driver may hand over frames in several buffers
/// (jumbo frames); headers are in the first.
#[xdp(frags)]
pub fn gateway_xdp(ctx: XdpContext) -> u32 {
    judge_frame(&ctx)
}

#[inline(always)]
fn judge_frame(ctx: &XdpContext) -> u32 {
    let frame = LinearFrame::new(ctx);
    // Once a packet: for the default, and for how densely sources are noted.
    let Some(settings) = SETTINGS.get(0) else { return XDP_ABORTED };
    let mut headers = Headers::BLANK;
    let mut stages = InTheKernel { ctx, length: 0, settings };
    let judgement = judge(&frame, &mut headers, &mut stages);
    let recorded = record(ctx, &judgement, stages.length, settings);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(ctx, "reason {} rule {}", judgement.reason as u32, judgement.rule);
    match recorded {
        Err(Reason::Internal) => XDP_ABORTED,
        _ => match judgement.verdict() {
            Verdict::Pass => XDP_PASS,
            Verdict::Drop => XDP_DROP,
        },
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that can get here, so there is nothing to do.
    loop {}
}

/// The helpers and per-processor counting need a GPL-compatible licence string; the sources are
/// Apache-2.0 OR MIT, which `Dual MIT/GPL` lets the kernel accept.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
