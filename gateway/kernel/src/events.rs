//! Sampled verdicts out of the programs' ring buffer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues, RingBuf};
use gateway_common::abi;
use gateway_common::packet::Address;
use gateway_common::verdict::Reason;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::interfaces::name_of;
use crate::pin::PinDir;
use crate::rulebook;
use crate::store::{Pinned, Store, boot_ns, kernel, open_map, open_per_cpu, processors};

/// Events a reason may send from one processor between two calls of [`Events::grant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Somebody watches: 100.
    Watched,
    /// Only the memory of recent events reads: 10, enough to say why a source is dropped, and in a flood no
    /// more than a hundred events a second.
    Background,
}

impl Share {
    const fn credit(self) -> abi::EventCredit {
        match self {
            Self::Watched => 100,
            Self::Background => 10,
        }
    }
}

/// Events that the programs did not send since the counters began, by the number of their reason.
pub type Lost = [u64; Reason::ALL.len()];

/// A sampled verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The interface's name.
    pub interface: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The reason's stable name.
    pub reason: String,
    /// The rule's label, where a rule matched.
    pub rule: Option<String>,
    /// Where it came from, if the packet got that far in parsing.
    pub source: Option<IpAddr>,
    /// Where it went.
    pub destination: Option<IpAddr>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source port, for TCP and UDP.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Bytes on the wire.
    pub length: u32,
}

/// The reading end of the programs' ring buffer: call `read` every few milliseconds while somebody watches
/// (people read no faster, and polling its descriptor would need unsafe code at the caller's), and ten times
/// a second while nobody does. There may be one reader at a time; the agent's lock sees to that. When it is
/// dropped the programs sample nothing.
pub struct Events {
    ring: RingBuf<MapData>,
    credit: PerCpuArray<MapData, abi::EventCredit>,
    store: Arc<Pinned>,
    processors: usize,
    names: Names,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("store", &self.store).finish_non_exhaustive()
    }
}

/// What numbers in events stand for; looked up when first seen, and forgotten with each grant, because
/// rows are given to others in time.
#[derive(Debug, Default)]
struct Names {
    interfaces: HashMap<u32, String>,
    rules: HashMap<u32, String>,
}

impl Events {
    pub(crate) fn open(dir: &PinDir, store: Arc<Pinned>) -> Result<Self, Error> {
        let maps = dir.maps();
        let ring = RingBuf::try_from(Map::RingBuf(open_map(&maps, "events")?))
            .map_err(|error| kernel("read the event ring", error))?;
        let credit = open_per_cpu(&maps, "event_credit")?;
        let mut events = Self { ring, credit, store, processors: processors()?, names: Names::default() };
        events.pause()?;
        Ok(events)
    }

    /// Hands every waiting event to `sink`.
    pub fn read(&mut self, sink: &mut dyn FnMut(Event)) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let boot_ms = boot_ns() / 1_000_000;
        while let Some(item) = self.ring.next() {
            if let Some(event) = decode(&item) {
                let time_ms = (now_ms + event.time_ns / 1_000_000).saturating_sub(boot_ms);
                if let Some(event) = self.names.event(&self.store, &event, time_ms) {
                    sink(event);
                }
            }
        }
    }

    /// Grants each reason another share of events; call it every 100 ms.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn grant(&mut self, share: Share) -> Result<(), Error> {
        self.names = Names::default();
        self.set_credit(share.credit())
    }

    /// What the programs did not send, because a reason's credit was spent or the ring was full.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn lost(&self) -> Result<Lost, Error> {
        let mut lost = [0; Reason::ALL.len()];
        for interface in self.store.counters()? {
            for (reason, counted) in interface.reasons {
                lost[reason as usize] += counted.events_lost;
            }
        }
        Ok(lost)
    }

    /// Nobody reads any more: nothing is sampled, and nothing counted as lost.
    fn pause(&mut self) -> Result<(), Error> {
        self.set_credit(abi::NOBODY_READS)
    }

    fn set_credit(&mut self, credit: abi::EventCredit) -> Result<(), Error> {
        for reason in 0..Reason::ALL.len() as u32 {
            let values = PerCpuValues::try_from(vec![credit; self.processors])
                .map_err(|error| kernel("grant events", error))?;
            self.credit.set(reason, values, 0).map_err(|error| kernel("grant events", error))?;
        }
        Ok(())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Err(error) = self.pause() {
            tracing::warn!("sampling goes on although nobody reads: {error}");
        }
    }
}

impl Names {
    fn event(&mut self, store: &Pinned, event: &abi::Event, time_ms: u64) -> Option<Event> {
        let reason = Reason::from_number(event.reason)?;
        let has_ports = event.source_port != 0 || event.destination_port != 0;
        let address = |words: [u32; 4]| match event.family {
            4 => Some(IpAddr::from(Address::v4(words[0]))),
            6 => Some(IpAddr::from(Address::v6(words))),
            _ => None,
        };
        Some(Event {
            time_ms,
            interface: self.interface(store, event.slot),
            verdict: reason.verdict().name().to_owned(),
            reason: reason.name().to_owned(),
            rule: (event.rule != abi::NO_RULE).then(|| self.rule(store, event.rule)),
            source: address(event.source),
            destination: address(event.destination),
            protocol: (event.family != 0).then_some(event.protocol),
            source_port: has_ports.then_some(event.source_port),
            destination_port: has_ports.then_some(event.destination_port),
            length: event.length,
        })
    }

    fn interface(&mut self, store: &Pinned, slot: u32) -> String {
        let name = self.interfaces.entry(slot).or_insert_with(|| {
            let rows = store.interfaces().unwrap_or_default();
            rows.get(slot as usize).map_or_else(|| "unknown".to_owned(), name_of)
        });
        name.clone()
    }

    fn rule(&mut self, store: &Pinned, number: u32) -> String {
        let label = self.rules.entry(number).or_insert_with(|| {
            store
                .rules()
                .ok()
                .and_then(|rules| rulebook::label(&rules, number))
                .unwrap_or_else(|| "unknown".to_owned())
        });
        label.clone()
    }
}

/// An event out of the ring's bytes; the layout is that of [`abi::Event`].
fn decode(bytes: &[u8]) -> Option<abi::Event> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let address = |at: usize| Some([word(at)?, word(at + 4)?, word(at + 8)?, word(at + 12)?]);
    Some(abi::Event {
        time_ns: u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?),
        rule: word(std::mem::offset_of!(abi::Event, rule))?,
        reason: word(std::mem::offset_of!(abi::Event, reason))?,
        length: word(std::mem::offset_of!(abi::Event, length))?,
        slot: word(std::mem::offset_of!(abi::Event, slot))?,
        source: address(std::mem::offset_of!(abi::Event, source))?,
        destination: address(std::mem::offset_of!(abi::Event, destination))?,
        source_port: half(std::mem::offset_of!(abi::Event, source_port))?,
        destination_port: half(std::mem::offset_of!(abi::Event, destination_port))?,
        family: *bytes.get(std::mem::offset_of!(abi::Event, family))?,
        protocol: *bytes.get(std::mem::offset_of!(abi::Event, protocol))?,
        padding: [0; 2],
    })
}
