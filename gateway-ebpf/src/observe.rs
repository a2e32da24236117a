//! Counts every packet by reason and every match by rule, samples what was not plainly passed, and notes
//! now and then whose packets passed.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use gateway_common::{
    abi::{Counter, Event, Settings, Source, counter_index, source_slot},
    packet::{Headers, parse},
    stages::{Judgement, Match, Observer},
    verdict::{Reason, Verdict},
};

use crate::{
    frame::LinearFrame,
    maps::{COUNTERS, EVENT_CREDIT, EVENTS, RULE_HITS, SOURCES, now_ns},
};

/// The row of counters of the interface that this copy of the program is attached to: set by the loader,
/// which loads the program once an interface, so that the verifier sees a constant.
#[unsafe(no_mangle)]
static INTERFACE_SLOT: u32 = 0;

#[inline(always)]
fn slot() -> u32 {
    // SAFETY: a plain read of a static; volatile, because the loader writes the value into the object.
    unsafe { core::ptr::read_volatile(&raw const INTERFACE_SLOT) }
}

/// Counts the rules that matched on the way.
pub struct RuleHits {
    pub length: u64,
}

impl Observer for RuleHits {
    #[inline(always)]
    fn matched(&mut self, found: &Match) {
        if let Some(counter) = RULE_HITS.get_ptr_mut(found.hit.rule()) {
            // SAFETY: the map's value lives as long as the map, and this processor alone writes it.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += self.length;
            }
        }
    }
}

/// Counts the packet, samples it if it is of interest, and notes the source of one in so many that pass.
///
/// # Errors
/// [`Reason::Internal`], if there is no counter: then the object and its maps do not fit.
#[inline(always)]
pub fn record(
    ctx: &XdpContext,
    judgement: &Judgement,
    length: u64,
    settings: &Settings,
) -> Result<(), Reason> {
    let index = counter_index(slot(), judgement.reason);
    let Some(counter) = COUNTERS.get_ptr_mut(index) else { return Err(Reason::Internal) };
    // SAFETY: the map's value lives as long as the map, and this processor alone writes it.
    let counter = unsafe { &mut *counter };
    counter.packets += 1;
    counter.bytes += length;
    if is_of_interest(judgement.reason) {
        sample(ctx, judgement, length, counter);
    }
    // The counter is at hand, so all others pay for an AND and a branch; a random number or the clock would
    // cost each of them more than all the rest of counting.
    if counter.packets & u64::from(settings.source_sampling) == 0
        && matches!(judgement.verdict(), Verdict::Pass)
    {
        note_source(ctx.ctx);
    }
    Ok(())
}

/// Plain traffic is only counted.
#[inline(always)]
const fn is_of_interest(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::NoMatch
            | Reason::NotIp
            | Reason::AllowList
            | Reason::Reply
            | Reason::ReplyError
            | Reason::NeighbourDiscovery
            | Reason::DhcpReply
    )
}

#[inline(always)]
fn sample(ctx: &XdpContext, judgement: &Judgement, length: u64, counter: &mut Counter) {
    let Some(credit) = EVENT_CREDIT.get_ptr_mut(judgement.reason as u32) else { return };
    // SAFETY: as above; a reader that renews the credit at the same moment loses or grants one event.
    let credit = unsafe { &mut *credit };
    if *credit < 0 {
        return;
    }
    if *credit > 0 && send_event(ctx.ctx, judgement.reason as u32, judgement.rule, length) == SENT {
        *credit -= 1;
    } else {
        counter.events_lost += 1;
    }
}

/// What [`send_event`] returns when the ring had room.
const SENT: u32 = 1;

/// Puts an event into the ring. A global function, as is the next: they read the headers again, so that of all
/// that is in them the way of every packet keeps only what decides.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send_event(ctx: *mut xdp_md, reason: u32, rule: u32, length: u64) -> u32 {
    let Some(mut room) = EVENTS.reserve::<Event>(0) else { return 0 };
    let mut headers = Headers::BLANK;
    // As far as reading gets, as before.
    let _ = parse(&LinearFrame::new(&XdpContext::new(ctx)), &mut headers);
    let packet = &headers.packet;
    // In the ring's memory: an event on the stack would be copied.
    room.write(Event {
        time_ns: now_ns(),
        rule,
        reason,
        length: length as u32,
        slot: slot(),
        source: packet.source.words,
        destination: packet.destination.words,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        family: if headers.has_addresses { packet.source.family as u8 } else { 0 },
        protocol: packet.protocol,
        padding: [0; 2],
    });
    room.submit(0);
    SENT
}

/// Notes a packet's source, if it has one. Returns nothing of use.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_source(ctx: *mut xdp_md) -> u32 {
    let mut headers = Headers::BLANK;
    let _ = parse(&LinearFrame::new(&XdpContext::new(ctx)), &mut headers);
    if !headers.has_addresses {
        return 0;
    }
    let source = &headers.packet.source;
    if let Some(row) = SOURCES.get_ptr_mut(source_slot(source)) {
        // SAFETY: the map's value lives as long as the map. Another processor may write it at the same
        // moment; readers leave out a row that is a mixture of two.
        unsafe { row.write(Source::new(source, now_ns())) };
    }
    0
}
