//! A value that the compiler knows nothing of.
//!
//! LLVM recognises arithmetic on masks as a choice and, having no instruction for one, makes a branch of it.
//! Two branches a slot are thirty-two ways through four slots: the verifier would walk them all.
#![allow(unsafe_code)]

/// The value itself.
#[inline(always)]
pub(super) fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let value = {
        let mut value = value;
        // SAFETY: a register is moved to itself. Not no instruction at all: two lines of source at one
        // instruction is something that the kernel refuses.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
        value
    };
    value
}
