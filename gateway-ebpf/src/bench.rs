//! Programs that only BPF_PROG_TEST_RUN runs, for `cargo xtask bench packet`.
//!
//! A test run repeats one frame, so a table's hot line would stay in the cache and every list would look
//! alike. Both programs therefore write a random source into the frame first; the floor then stops, and what
//! the other takes longer is the price of judging. They are part of the object that ships, so that what is
//! measured is what runs; nobody attaches them.

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS, helpers::bpf_get_prandom_u32, macros::xdp, programs::XdpContext,
};

use crate::judge_frame;

/// Where an untagged frame's source address begins: behind Ethernet and the part of the header before it.
const IPV4_SOURCE: usize = 14 + 12;
const IPV6_SOURCE: usize = 14 + 8;
const IPV6: u16 = 0x86dd_u16.to_be();

/// A random source, and nothing else.
#[xdp(frags)]
pub fn bench_floor(ctx: XdpContext) -> u32 {
    randomise(&ctx);
    XDP_PASS
}

/// A random source, and the whole chain.
#[xdp(frags)]
pub fn bench_gateway(ctx: XdpContext) -> u32 {
    randomise(&ctx);
    judge_frame(&ctx)
}

/// Networks of even number (a /24, a /48), so that lists of odd ones have none of the sources. The low half of a v6
/// address stays: networks differ in the high half.
#[inline(always)]
fn randomise(ctx: &XdpContext) {
    let start = ctx.data();
    if start + IPV4_SOURCE + 8 > ctx.data_end() {
        return;
    }
    // SAFETY: the frame was just shown to be long enough; the helper takes no arguments.
    unsafe {
        let random = bpf_get_prandom_u32();
        if ((start + 12) as *const u16).read_unaligned() == IPV6 {
            // 2000::/3, where global addresses are.
            let high = (random & 0x1fff_ffff | 0x2000_0000).to_be();
            ((start + IPV6_SOURCE) as *mut u32).write_unaligned(high);
            let low = bpf_get_prandom_u32() & !0x1_0000_u32.to_be();
            ((start + IPV6_SOURCE + 4) as *mut u32).write_unaligned(low);
        } else {
            ((start + IPV4_SOURCE) as *mut u32).write_unaligned(random & !0x100_u32.to_be());
        }
    }
}
