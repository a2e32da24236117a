//! Attaches the program to interfaces by links that are pinned, so that they outlive the agent.
//!
//! A pinned link is taken over by replacing its program in place: there is no moment without one. Somebody
//! else's program is never replaced.

use std::io;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use gateway_common::abi::{INTERFACE_SLOTS, Interface, Mode};

use crate::entry::Attach;
use crate::error::{Error, chain};
use crate::interfaces::{index_of, name_bytes, name_of, xdp_program};
use crate::object;
use crate::pin::PinDir;
use crate::protection::InterfaceState;
use crate::store::{Pinned, kernel};

/// An interface of the plan, looked up and found free for us.
#[derive(Debug)]
pub(crate) struct Target {
    name: String,
    index: u32,
    /// Our own link already holds the hook, in this mode.
    ours: Option<Mode>,
    slot: u32,
}

/// Looks at every interface before anything is changed: it exists, and its hook is free or ours.
pub(crate) fn survey(dir: &PinDir, rows: &[Interface], names: &[String]) -> Result<Vec<Target>, Error> {
    let mut free: Vec<u32> = (0..INTERFACE_SLOTS)
        .filter(|slot| {
            let row = rows.get(*slot as usize);
            // A row whose interface is not in the plan is free as well: it is released before.
            row.is_none_or(|row| row.name[0] == 0 || !names.contains(&name_of(row)))
        })
        .rev()
        .collect();
    names
        .iter()
        .map(|name| {
            let index = index_of(name)?;
            let known = rows.iter().position(|row| name_of(row) == *name);
            let slot = known.map(|slot| slot as u32).or_else(|| free.pop()).ok_or_else(|| Error::Kernel {
                what: format!("protect {name}"),
                why: format!("one gateway protects at most {INTERFACE_SLOTS} interfaces"),
            })?;
            let ours = match xdp_program(index)? {
                None => None,
                Some(attached)
                    if known.is_some() && linked_program(dir, slot) == Some(attached.program_id) =>
                {
                    attached.mode
                }
                Some(attached) => return Err(foreign(name, attached.program_id)),
            };
            Ok(Target { name: name.clone(), index, ours, slot })
        })
        .collect()
}

/// Attaches to one interface, or replaces our program on it. Returns its state, and whether the
/// attachment is new (so that a failure later on can take it back).
pub(crate) fn attach(
    dir: &PinDir,
    store: &Pinned,
    target: &Target,
    wanted: Attach,
) -> Result<(InterfaceState, bool), Error> {
    let mut ebpf = object::load(target.slot, &dir.maps())?;
    let program = object::gateway(&mut ebpf)?;
    let kept = target.ours.filter(|mode| match wanted {
        Attach::Native => *mode == Mode::Native,
        Attach::Generic => *mode == Mode::Generic,
        Attach::Auto | Attach::Off => true,
    });
    let (mode, note, new) = if let Some(mode) = kept {
        replace(dir, program, target)?;
        (mode, None, false)
    } else {
        release_link(dir, target.slot)?;
        let (mode, note) = attach_anew(dir, program, target, wanted)?;
        (mode, note, true)
    };
    #[cfg(feature = "ebpf-log")]
    crate::program_log::follow(&mut ebpf, &target.name);
    let row = Interface { index: target.index, mode: mode as u32, name: name_bytes(&target.name) };
    store.set_interface(target.slot, &row)?;
    Ok((InterfaceState { name: target.name.clone(), mode: mode.name().to_owned(), note }, new))
}

/// Detaches from the interface of a row and frees the row.
pub(crate) fn release(dir: &PinDir, store: &Pinned, slot: u32) -> Result<(), Error> {
    release_link(dir, slot)?;
    store.set_interface(slot, &Interface { index: 0, mode: 0, name: [0; 16] })
}

/// The row that an interface of this name has.
pub(crate) fn slot_of(rows: &[Interface], name: &str) -> Option<u32> {
    rows.iter().position(|row| name_of(row) == name).map(|slot| slot as u32)
}

/// What is attached now, by the kernel's own account.
pub(crate) fn attached(dir: &PinDir, rows: &[Interface]) -> Vec<InterfaceState> {
    let taken = rows.iter().enumerate().filter(|(_, row)| row.name[0] != 0);
    taken
        .filter_map(|(slot, row)| {
            let program = linked_program(dir, slot as u32)?;
            let now = xdp_program(row.index).ok()??;
            (now.program_id == program).then(|| InterfaceState {
                name: name_of(row),
                mode: now.mode.or(Mode::from_number(row.mode)).map_or("unknown", Mode::name).to_owned(),
                note: None,
            })
        })
        .collect()
}

/// Waits until the kernel has let the hooks go: it frees a link a moment after its last reference went, and
/// whoever is told that the programs are gone may attach another at once.
pub(crate) fn wait_until_free(interfaces: &[InterfaceState]) {
    let until = Instant::now() + Duration::from_secs(1);
    let busy = |name: &str| index_of(name).is_ok_and(|index| matches!(xdp_program(index), Ok(Some(_))));
    for interface in interfaces {
        while busy(&interface.name) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn replace(dir: &PinDir, program: &mut Xdp, target: &Target) -> Result<(), Error> {
    let link =
        PinnedLink::from_pin(dir.link(target.slot)).map_err(|error| kernel("open the pinned link", error))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| kernel("use the pinned link", error))?;
    let updated = program
        .attach_to_link(link)
        .map_err(|error| kernel(&format!("replace the program on {}", target.name), error))?;
    // The link's pin keeps it; this descriptor may go.
    drop(program.take_link(updated).map_err(|error| kernel("let go of the link", error))?);
    Ok(())
}

fn attach_anew(
    dir: &PinDir,
    program: &mut Xdp,
    target: &Target,
    wanted: Attach,
) -> Result<(Mode, Option<String>), Error> {
    if wanted == Attach::Generic {
        return attach_in(dir, program, target, Mode::Generic).map(|()| (Mode::Generic, None));
    }
    match attach_in(dir, program, target, Mode::Native) {
        Ok(()) => Ok((Mode::Native, None)),
        Err(error @ (Error::ForeignProgram { .. } | Error::Privilege { .. })) => Err(error),
        Err(error) if wanted == Attach::Native => Err(error),
        Err(error) => {
            let note = format!("native attachment failed: {error}");
            attach_in(dir, program, target, Mode::Generic).map(|()| (Mode::Generic, Some(note)))
        }
    }
}

fn attach_in(dir: &PinDir, program: &mut Xdp, target: &Target, mode: Mode) -> Result<(), Error> {
    let what = || format!("attach to {} in {} mode", target.name, mode.name());
    let flag = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let id = match program.attach_to_if_index(target.index, flag) {
        Ok(id) => id,
        Err(error) => return Err(refused(&what(), target, &error)),
    };
    let link = program.take_link(id).map_err(|error| kernel(&what(), error))?;
    // Without XDP links aya falls back to netlink, and such an attachment cannot be pinned: it would end
    // with the agent. Dropping it detaches it again.
    let link = FdLink::try_from(link).map_err(|_| Error::Kernel {
        what: what(),
        why: "it has no XDP links, which came with Linux 5.9".to_owned(),
    })?;
    link.pin(dir.link(target.slot)).map_err(|error| kernel("pin the link", error))?;
    Ok(())
}

fn refused(what: &str, target: &Target, error: &ProgramError) -> Error {
    let io_error = match error {
        ProgramError::SyscallError(error) => Some(&error.io_error),
        _ => None,
    };
    match io_error.map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => Error::Privilege { what: what.to_owned() },
        // Somebody came between the survey and now.
        Some(io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists) => match xdp_program(target.index) {
            Ok(Some(attached)) => foreign(&target.name, attached.program_id),
            _ => Error::Kernel { what: what.to_owned(), why: chain(error) },
        },
        _ => Error::Kernel { what: what.to_owned(), why: chain(error) },
    }
}

fn release_link(dir: &PinDir, slot: u32) -> Result<(), Error> {
    match std::fs::remove_file(dir.link(slot)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(kernel("remove a pinned link", error)),
    }
}

/// The program behind our pinned link, if there is one.
fn linked_program(dir: &PinDir, slot: u32) -> Option<u32> {
    let link = PinnedLink::from_pin(dir.link(slot)).ok()?;
    FdLink::from(link).info().ok().map(|info| info.program_id())
}

fn foreign(interface: &str, program_id: u32) -> Error {
    let name = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == program_id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_else(|| "unnamed".to_owned());
    Error::ForeignProgram { interface: interface.to_owned(), program: format!("{name} (id {program_id})") }
}
