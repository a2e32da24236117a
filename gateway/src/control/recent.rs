//! The last events of each source, for `explain`: what happened to a source a moment ago answers more
//! questions than what would happen to it now.
//!
//! Bounded whatever comes: [`MAX_SOURCES`] sources of [`EVENTS_A_SOURCE`] events each. An event takes at most
//! about 250 bytes here (its labels are at most 63 and 15 bytes long), so that all of them take less than
//! 8 MiB, and usually, with a few sources, next to nothing. When there are too many, the source that was silent
//! for longest leaves.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_common::verdict::Reason;
use gateway_kernel::Event;

/// Sources that are remembered.
pub const MAX_SOURCES: usize = 4096;
/// Events that are remembered of each.
pub const EVENTS_A_SOURCE: usize = 8;

/// The memory. Cheap to clone; every clone remembers the same.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    shared: Arc<Mutex<Memory>>,
}

impl Recent {
    /// Remembers an event, if it has a source.
    pub fn note(&self, event: &Event) {
        let (Some(source), Some(seen)) = (event.source, Seen::of(event)) else { return };
        self.memory().note(source, seen);
    }

    /// What is remembered of a source, newest first.
    #[must_use]
    pub fn of(&self, source: IpAddr) -> Vec<Event> {
        let memory = self.memory();
        let seen = memory.sources.get(&source).map(|remembered| &remembered.events);
        seen.into_iter().flatten().rev().map(|seen| seen.event(source)).collect()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic between two of its steps could at worst make it forget a source too early.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Memory {
    sources: HashMap<IpAddr, Remembered>,
    /// Who was heard of when, oldest first: by the number of the event.
    order: BTreeMap<u64, IpAddr>,
    next: u64,
}

/// One source's events, oldest first, and its place in the order.
#[derive(Debug, Default)]
struct Remembered {
    place: u64,
    events: VecDeque<Seen>,
}

impl Memory {
    fn note(&mut self, source: IpAddr, seen: Seen) {
        // From 1 on: 0 is the place of a source that has none yet.
        self.next += 1;
        let place = self.next;
        let remembered = self.sources.entry(source).or_default();
        self.order.remove(&remembered.place);
        self.order.insert(place, source);
        remembered.place = place;
        if remembered.events.len() == EVENTS_A_SOURCE {
            remembered.events.pop_front();
        }
        remembered.events.push_back(seen);
        if self.sources.len() > MAX_SOURCES
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.sources.remove(&oldest);
        }
    }
}

/// An event without what follows from its reason or stands beside it: names are kept as short as they are.
#[derive(Debug)]
struct Seen {
    time_ms: u64,
    interface: Box<str>,
    rule: Option<Box<str>>,
    destination: Option<IpAddr>,
    reason: Reason,
    length: u32,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    protocol: Option<u8>,
}

impl Seen {
    fn of(event: &Event) -> Option<Self> {
        Some(Self {
            time_ms: event.time_ms,
            interface: event.interface.as_str().into(),
            rule: event.rule.as_deref().map(Into::into),
            destination: event.destination,
            reason: *Reason::ALL.iter().find(|reason| reason.name() == event.reason)?,
            length: event.length,
            source_port: event.source_port,
            destination_port: event.destination_port,
            protocol: event.protocol,
        })
    }

    fn event(&self, source: IpAddr) -> Event {
        Event {
            time_ms: self.time_ms,
            interface: self.interface.to_string(),
            verdict: self.reason.verdict().name().to_owned(),
            reason: self.reason.name().to_owned(),
            rule: self.rule.as_deref().map(str::to_owned),
            source: Some(source),
            destination: self.destination,
            protocol: self.protocol,
            source_port: self.source_port,
            destination_port: self.destination_port,
            length: self.length,
        }
    }
}

/// Of the 250 bytes that the module promises, the labels take 15 and 63, each with an allocator's header of 16,
/// and the tables around them a share of less than 30.
const _: () = assert!(size_of::<Seen>() <= 104);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::events::tests::event;
    use super::*;

    fn source(number: usize) -> IpAddr {
        IpAddr::from(u32::try_from(0xc612_0000 + number).expect("a small number").to_be_bytes())
    }

    fn from(number: usize, length: u32) -> Event {
        Event { source: Some(source(number)), ..event(length) }
    }

    fn lengths(recent: &Recent, number: usize) -> Vec<u32> {
        recent.of(source(number)).iter().map(|event| event.length).collect()
    }

    #[test]
    fn the_last_events_of_a_source_newest_first() {
        type Case = (&'static str, &'static [(usize, u32)], &'static [u32], &'static [u32]);
        let table: &[Case] = &[
            ("nothing", &[], &[], &[]),
            ("one", &[(0, 1)], &[1], &[]),
            ("two sources", &[(0, 1), (1, 2), (0, 3)], &[3, 1], &[2]),
            (
                "eight",
                &[(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 6), (0, 7), (0, 8)],
                &[8, 7, 6, 5, 4, 3, 2, 1],
                &[],
            ),
            (
                "nine",
                &[(0, 1), (0, 2), (0, 3), (0, 4), (1, 9), (0, 5), (0, 6), (0, 7), (0, 8), (0, 9)],
                &[9, 8, 7, 6, 5, 4, 3, 2],
                &[9],
            ),
        ];
        for (name, events, first, second) in table {
            let recent = Recent::default();
            events.iter().for_each(|(number, length)| recent.note(&from(*number, *length)));
            assert_eq!(
                (lengths(&recent, 0), lengths(&recent, 1)),
                (first.to_vec(), second.to_vec()),
                "{name}"
            );
        }
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        let whole = Event {
            time_ms: 7,
            rule: Some("spam".to_owned()),
            source: Some(source(0)),
            destination: Some("2001:db8::1".parse().expect("an address")),
            protocol: Some(6),
            source_port: Some(1),
            destination_port: Some(443),
            ..event(60)
        };
        let recent = Recent::default();
        recent.note(&whole);
        recent.note(&event(61));
        assert_eq!(recent.of(source(0)), [whole], "and an event without a source is nobody's");
    }

    #[test]
    fn the_source_that_was_silent_for_longest_leaves() {
        let recent = Recent::default();
        (0..MAX_SOURCES).for_each(|number| recent.note(&from(number, 1)));
        // The first speaks again, so that the second is the oldest.
        recent.note(&from(0, 2));
        recent.note(&from(MAX_SOURCES, 1));
        let present = |number| !lengths(&recent, number).is_empty();
        let table = [(0, true), (1, false), (2, true), (MAX_SOURCES - 1, true), (MAX_SOURCES, true)];
        for (number, expected) in table {
            assert_eq!(present(number), expected, "source {number}");
        }
        assert_eq!(recent.memory().sources.len(), MAX_SOURCES);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        /// Against the plainest model: all events in a list.
        #[test]
        fn it_remembers_what_a_list_of_all_events_would_say(
            numbers in proptest::collection::vec(0..MAX_SOURCES * 5 / 4, 0..3 * MAX_SOURCES),
        ) {
            let recent = Recent::default();
            let mut last = HashMap::new();
            for (at, number) in numbers.iter().enumerate() {
                recent.note(&from(*number, u32::try_from(at).expect("few")));
                last.insert(*number, at);
            }
            let mut newest: Vec<(usize, usize)> = last.into_iter().map(|(number, at)| (at, number)).collect();
            newest.sort_unstable_by(|a, b| b.cmp(a));
            for (rank, (_, number)) in newest.iter().enumerate().step_by(97) {
                let found = lengths(&recent, *number);
                if rank >= MAX_SOURCES {
                    prop_assert!(found.is_empty());
                    continue;
                }
                let mut all = numbers.iter().enumerate().rev().filter(|(_, other)| *other == number);
                prop_assert!(found.len() <= EVENTS_A_SOURCE);
                prop_assert!(!found.is_empty());
                // A source that left and came back begins anew, so it may know less than the list.
                for length in &found {
                    prop_assert_eq!(Some(*length as usize), all.next().map(|(at, _)| at));
                }
            }
            let memory = recent.memory();
            prop_assert!(memory.sources.len() <= MAX_SOURCES);
            prop_assert_eq!(memory.sources.len(), memory.order.len());
        }
    }
}
