//! A frame in the driver's buffer or a packet's linear part on its way out, with the bounds checks that the
//! verifier wants to see.

use aya_ebpf::{
    helpers::bpf_xdp_get_buff_len,
    programs::{TcContext, XdpContext},
};
use gateway_common::packet::{Frame, Headers};

/// Offsets stay below this, so the verifier can bound every pointer. The longest chain of headers that
/// `parse` walks (two VLAN tags, IPv6, eight extension headers of at most 2 KiB) ends before it.
const OFFSET_MASK: usize = 0x7fff;

/// The linear part of a frame.
pub struct LinearFrame {
    start: usize,
    end: usize,
    /// 0, which the verifier cannot know.
    zero: usize,
}

/// Where a hook says what it was given.
pub trait Linear {
    /// The first byte, and the one behind the last.
    fn bounds(&self) -> (usize, usize);
    /// A number below 2^31, which the verifier does not know.
    fn number(&self) -> u32;
}

/// What arrived.
impl Linear for XdpContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }

    /// No driver has that many queues.
    #[inline(always)]
    fn number(&self) -> u32 {
        self.rx_queue_index()
    }
}

/// What is on its way out.
impl Linear for TcContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }

    /// No packet is that long.
    #[inline(always)]
    fn number(&self) -> u32 {
        self.len()
    }
}

impl LinearFrame {
    #[inline(always)]
    pub fn new(ctx: &impl Linear) -> Self {
        // This is 0; to the verifier it is 0 or all ones.
        let zero = 0_usize.wrapping_sub((ctx.number() >> 31) as usize);
        let (start, end) = ctx.bounds();
        Self { start, end, zero }
    }

    /// A pointer to `N` bytes at `offset`, if they are there.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<usize> {
        let pointer = self.start + (offset & OFFSET_MASK);
        if pointer + N > self.end { None } else { Some(pointer) }
    }
}

impl Frame for LinearFrame {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let pointer = self.start + (offset & OFFSET_MASK);
        if pointer + N * 4 > self.end {
            return None;
        }
        // SAFETY: the bytes were just shown to be inside the frame, which the kernel keeps until the
        // program returns. `read_unaligned`, because an IP header stands two bytes off a word.
        Some(unsafe { (pointer as *const [u32; N]).read_unaligned() })
    }

    #[inline(always)]
    fn half(&self, offset: usize) -> Option<u16> {
        // SAFETY: as above.
        self.at::<2>(offset).map(|pointer| unsafe { (pointer as *const u16).read_unaligned() })
    }

    #[inline(always)]
    fn forget_range(&self, offset: usize) -> usize {
        (offset ^ self.zero) & OFFSET_MASK
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Bytes of the whole frame, the buffers behind the first one included. Asking costs as much as reading the headers,
/// so it is asked only of a frame whose packet does not end in the first buffer.
#[inline(always)]
pub fn total_len(ctx: &XdpContext, headers: &Headers) -> u64 {
    let linear = ctx.data_end() - ctx.data();
    if headers.end_within(linear) {
        return linear as u64;
    }
    // SAFETY: the helper reads the context that the kernel gave to this very program.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) }
}
