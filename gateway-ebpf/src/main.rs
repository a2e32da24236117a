//! The programs that run in the kernel.
#![no_std]
#![no_main]
