//! The benchmark's own programs, instruction by instruction: what the gateway is compared to, and what sends
//! a flood. So few instructions need no compiler, and none of them ships.

use std::os::fd::{AsFd as _, AsRawFd as _};

use crate::Outcome;
use crate::bpf::{LpmTrie, Program};

/// XDP actions.
pub(crate) const DROP: u32 = 1;
/// As above.
pub(crate) const PASS: u32 = 2;
const TRANSMIT: u32 = 3;

/// Where an untagged frame's source begins: behind Ethernet and the part of the header before it.
const IPV4_SOURCE: i16 = 14 + 12;
const IPV6_SOURCE: i16 = 14 + 8;
/// The type of an IPv6 frame as a load of two bytes reads it.
const IPV6: i32 = 0x86dd_u16.to_be() as i32;

/// Gives the frame a random source exactly as `bench_floor` of the gateway's object does, looks it up in a
/// trie, and drops what is found. It parses nothing and counts nothing: less than any filter must do.
pub(crate) fn lpm(v4: &LpmTrie, v6: &LpmTrie) -> Outcome<Program> {
    let mut code = Code::default();
    code.check_length(54);
    code.call(PRANDOM);
    code.load(HALF, R1, R7, 12);
    code.jump_if(EQUAL, R1, IPV6, "v6");

    code.and(R0, !0x100_u32.to_be() as i32);
    code.store(WORD, R7, IPV4_SOURCE, R0);
    code.store(WORD, R10, -4, R0);
    code.store_number(R10, -8, 32);
    code.lookup(v4, -8);
    code.jump("found");

    code.label("v6");
    code.and(R0, 0x1fff_ffff);
    code.or(R0, 0x2000_0000);
    code.swap_to_network_order(R0);
    code.store(WORD, R7, IPV6_SOURCE, R0);
    code.call(PRANDOM);
    code.and(R0, !0x1_0000_u32.to_be() as i32);
    code.store(WORD, R7, IPV6_SOURCE + 4, R0);
    for offset in [0, 4, 8, 12] {
        code.load(WORD, R1, R7, IPV6_SOURCE + offset);
        code.store(WORD, R10, offset - 16, R1);
    }
    code.store_number(R10, -20, 128);
    code.lookup(v6, -20);

    code.label("found");
    code.jump_if(EQUAL, R0, 0, "pass");
    code.answer(DROP);
    code.label("pass");
    code.answer(PASS);
    Program::load("bench_lpm", &code.finish()?)
}

/// Answers XDP_PASS: what a test run itself takes.
pub(crate) fn pass() -> Outcome<Program> {
    let mut code = Code::default();
    code.answer(PASS);
    Program::load("bench_pass", &code.finish()?)
}

/// Gives an IPv4 frame a random source in a network, and sends it.
pub(crate) fn flood(network: ipnet::Ipv4Net) -> Outcome<Program> {
    let mut code = Code::default();
    code.check_length(34);
    code.call(PRANDOM);
    code.and(R0, u32::from(network.hostmask()) as i32);
    code.or(R0, u32::from(network.network()) as i32);
    code.swap_to_network_order(R0);
    code.store(WORD, R7, IPV4_SOURCE, R0);
    code.answer(TRANSMIT);
    code.label("pass");
    code.answer(PASS);
    Program::load("bench_flood", &code.finish()?)
}

/// The kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instruction {
    code: u8,
    /// The destination in the low half, the source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Instructions with jumps to labels, resolved at the end. All jumps go forward.
#[derive(Default)]
struct Code {
    instructions: Vec<Instruction>,
    jumps: Vec<(usize, &'static str)>,
    labels: Vec<(&'static str, usize)>,
}

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
/// The frame's first byte in all of these programs; calls leave it alone.
const R7: u8 = 7;
/// The end of the stack.
const R10: u8 = 10;

const WORD: u8 = 0x00;
const HALF: u8 = 0x08;
const EQUAL: u8 = 0x15;
const ALWAYS: u8 = 0x05;

/// Helpers by number.
const MAP_LOOKUP: i32 = 1;
const PRANDOM: i32 = 7;

impl Code {
    /// Passes a frame that is shorter; R7 points to the others.
    fn check_length(&mut self, bytes: i32) {
        self.load(WORD, R7, R1, 0);
        self.load(WORD, R3, R1, 4);
        self.push(0xbf, R2, R7, 0, 0);
        self.push(0x07, R2, 0, 0, bytes);
        // Jump if R2 > R3.
        self.jumps.push((self.instructions.len(), "pass"));
        self.push(0x2d, R2, R3, 0, 0);
    }

    /// Looks the key up that the stack holds at an offset; R0 is where it was found, or 0.
    fn lookup(&mut self, trie: &LpmTrie, key: i32) {
        // A load of 64 bits takes two instructions; source 1 says that the number is a map's descriptor.
        self.push(0x18, R1, 1, 0, trie.as_fd().as_raw_fd());
        self.push(0, 0, 0, 0, 0);
        self.push(0xbf, R2, R10, 0, 0);
        self.push(0x07, R2, 0, 0, key);
        self.call(MAP_LOOKUP);
    }

    fn load(&mut self, size: u8, to: u8, from: u8, offset: i16) {
        self.push(0x61 | size, to, from, offset, 0);
    }

    fn store(&mut self, size: u8, to: u8, offset: i16, from: u8) {
        self.push(0x63 | size, to, from, offset, 0);
    }

    fn store_number(&mut self, to: u8, offset: i16, number: i32) {
        self.push(0x62, to, 0, offset, number);
    }

    fn and(&mut self, register: u8, number: i32) {
        self.push(0x54, register, 0, 0, number);
    }

    fn or(&mut self, register: u8, number: i32) {
        self.push(0x44, register, 0, 0, number);
    }

    fn swap_to_network_order(&mut self, register: u8) {
        self.push(0xdc, register, 0, 0, 32);
    }

    fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    fn answer(&mut self, action: u32) {
        self.push(0xb7, R0, 0, 0, action as i32);
        self.push(0x95, 0, 0, 0, 0);
    }

    fn jump(&mut self, to: &'static str) {
        self.jump_if(ALWAYS, 0, 0, to);
    }

    fn jump_if(&mut self, condition: u8, register: u8, number: i32, to: &'static str) {
        self.jumps.push((self.instructions.len(), to));
        self.push(condition, register, 0, 0, number);
    }

    fn label(&mut self, name: &'static str) {
        self.labels.push((name, self.instructions.len()));
    }

    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.instructions.push(Instruction { code, registers: from << 4 | to, offset, immediate });
    }

    fn finish(mut self) -> Outcome<Vec<Instruction>> {
        for (at, to) in self.jumps {
            let label = self.labels.iter().find(|(name, _)| *name == to);
            let (_, label) = label.ok_or_else(|| format!("a jump goes to {to}, which is nowhere"))?;
            self.instructions[at].offset = i16::try_from(*label - at - 1)?;
        }
        Ok(self.instructions)
    }
}
