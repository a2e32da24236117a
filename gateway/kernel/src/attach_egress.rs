//! Attaches the program that remembers what the host sends, where `kernel.default` is `drop`: by TCX links,
//! pinned beside the XDP links, so that it outlives the agent as they do and is taken over in place.
//!
//! It stands before whatever else is on the hook, now: a program before it might end the chain with a verdict
//! of its own, and replies to what it let out would be dropped. It always hands on, so it is in nobody's way.

use std::io;

use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;

use crate::error::{Error, chain};
use crate::object;
use crate::pin::PinDir;
use crate::store::kernel;

/// Attaches to one interface, or replaces our program on it. `true`: there was none before.
pub(crate) fn attach(dir: &PinDir, slot: u32, interface: &str) -> Result<bool, Error> {
    let mut ebpf = object::load(slot, &dir.maps())?;
    let program = object::egress(&mut ebpf)?;
    if is_attached(dir, slot, interface) {
        replace(dir, program, slot, interface)?;
        return Ok(false);
    }
    // A link whose interface is gone.
    release(dir, slot)?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program
        .attach_with_options(interface, TcAttachType::Egress, order)
        .map_err(|error| refused(interface, &error))?;
    let link = program.take_link(id).map_err(|error| kernel("take the egress link", error))?;
    let link = FdLink::try_from(link).map_err(|error| kernel("use the egress link", error))?;
    link.pin(dir.egress(slot)).map_err(|error| kernel("pin the egress link", error))?;
    Ok(true)
}

/// Whether our program sees what this interface sends. By program, because a link outlives its interface.
pub(crate) fn is_attached(dir: &PinDir, slot: u32, interface: &str) -> bool {
    let Ok(link) = PinnedLink::from_pin(dir.egress(slot)) else { return false };
    let Ok(info) = FdLink::from(link).info() else { return false };
    SchedClassifier::query_tcx(interface, TcAttachType::Egress)
        .is_ok_and(|(_, programs)| programs.iter().any(|program| program.id() == info.program_id()))
}

/// Detaches from the interface of a row, if the program is there.
pub(crate) fn release(dir: &PinDir, slot: u32) -> Result<(), Error> {
    match std::fs::remove_file(dir.egress(slot)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(kernel("remove a pinned egress link", error))
        }
        _ => Ok(()),
    }
}

fn replace(dir: &PinDir, program: &mut SchedClassifier, slot: u32, interface: &str) -> Result<(), Error> {
    let link = PinnedLink::from_pin(dir.egress(slot))
        .map_err(|error| kernel("open the pinned egress link", error))?;
    let link = SchedClassifierLink::try_from(FdLink::from(link))
        .map_err(|error| kernel("use the pinned egress link", error))?;
    let updated = program
        .attach_to_link(link)
        .map_err(|error| kernel(&format!("replace the egress program on {interface}"), error))?;
    // The link's pin keeps it; this descriptor may go.
    drop(program.take_link(updated).map_err(|error| kernel("let go of the egress link", error))?);
    Ok(())
}

fn refused(interface: &str, error: &ProgramError) -> Error {
    let what = format!("remember what {interface} sends");
    if KernelVersion::current().is_ok_and(|running| running < KernelVersion::new(6, 6, 0)) {
        let why =
            "kernel.default: drop needs Linux 6.6, whose TCX links the program hangs on; set it to pass";
        return Error::Kernel { what, why: why.to_owned() };
    }
    match error {
        ProgramError::SyscallError(error) if error.io_error.kind() == io::ErrorKind::PermissionDenied => {
            Error::Privilege { what: format!("attaching the egress program to {interface}") }
        }
        _ => Error::Kernel { what, why: chain(error) },
    }
}
