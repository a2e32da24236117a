//! What the kernel programs and the agent both know: the layout of the maps ([`abi`]), the readers of a
//! frame ([`packet`]), the stages a packet goes through ([`stages`]), what the host has sent ([`flows`]) and what
//! may come of a packet ([`verdict`]).
//!
//! Everything here is pure: the frame, the tables and the time are arguments. So the kernel programs, the
//! agent's `explain`, the fallback at accept and the tests on the host all run this very code.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![deny(unsafe_code)]

pub mod abi;
pub mod flows;
pub mod packet;
pub mod stages;
pub mod table;
pub mod verdict;
