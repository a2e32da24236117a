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

use crate::attach_egress;
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
    pub(crate) name: String,
    index: u32,
    pub(crate) slot: u32,
    /// The mode in which our own link already holds the hook.
    ours: Option<Mode>,
}

/// What attaching to one interface did, so that a failure later on can take it back.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) state: InterfaceState,
    former: Option<Mode>,
    now: Mode,
}

/// Looks at every interface before anything is changed: it exists, and its hook is free or ours.
pub(crate) fn survey(dir: &PinDir, rows: &[Interface], names: &[String]) -> Result<Vec<Target>, Error> {
    // A row that an interface is about to leave is not free yet: if the plan fails, it must still be there.
    let taken = |slot: &u32| rows.get(*slot as usize).is_some_and(|row| row.name[0] != 0);
    let mut free = (0..INTERFACE_SLOTS).filter(|slot| !taken(slot));
    names
        .iter()
        .map(|name| {
            let index = index_of(name)?;
            let known = slot_of(rows, name);
            let slot = known.or_else(|| free.next()).ok_or_else(|| Error::Kernel {
                what: format!("protect {name}"),
                why: format!(
                    "one gateway protects at most {INTERFACE_SLOTS} interfaces, those it is about to leave included"
                ),
            })?;
            let ours = match xdp_program(index)? {
                None => None,
                Some(attached) if linked_program(dir, slot) == Some(attached.program_id) => attached.mode,
                Some(attached) => return Err(foreign(name, attached.program_id)),
            };
            Ok(Target { name: name.clone(), index, slot, ours })
        })
        .collect()
}

/// Attaches to one interface, or replaces our program on it.
pub(crate) fn attach(dir: &PinDir, store: &Pinned, target: &Target, wanted: Attach) -> Result<Done, Error> {
    let mut ebpf = object::load(target.slot, &dir.maps())?;
    let program = object::gateway(&mut ebpf)?;
    let kept = target.ours.filter(|mode| match wanted {
        Attach::Native => *mode == Mode::Native,
        Attach::Generic => *mode == Mode::Generic,
        Attach::Auto | Attach::Off => true,
    });
    // The row before the link: a row without a link is harmless, but a link without a row, left by a kill in
    // between, would be taken for somebody else's.
    let mode = kept.or(target.ours).unwrap_or(Mode::Native);
    claim(store, target, mode)?;
    let (now, note) = if let Some(mode) = kept {
        replace(dir, program, target)?;
        (mode, taken_over_note(mode, wanted))
    } else {
        release_link(dir, target.slot)?;
        wait_until_free(target.index);
        attach_anew(dir, program, target, wanted).inspect_err(|_| restore(dir, store, program, target))?
    };
    claim(store, target, now)?;
    #[cfg(feature = "ebpf-log")]
    crate::program_log::follow(&mut ebpf, &target.name);
    let state = InterfaceState { name: target.name.clone(), mode: now.name().to_owned(), note };
    Ok(Done { state, former: target.ours, now })
}

/// Takes back what [`attach`] did, as far as the kernel lets it.
pub(crate) fn undo(dir: &PinDir, store: &Pinned, target: &Target, done: &Done) -> Result<(), Error> {
    match done.former {
        None => release(dir, store, target.slot),
        // The program is as good as the one before it: the same rules over the same maps.
        Some(former) if former == done.now => Ok(()),
        Some(former) => {
            let wanted = if former == Mode::Native { Attach::Native } else { Attach::Generic };
            let now = Target { name: target.name.clone(), ours: Some(done.now), ..*target };
            attach(dir, store, &now, wanted).map(|_| ())
        }
    }
}

/// After a failed change of mode: back to the mode before, or, where there was none, a free row.
fn restore(dir: &PinDir, store: &Pinned, program: &mut Xdp, target: &Target) {
    let restored = match target.ours {
        None => release(dir, store, target.slot),
        Some(former) => attach_in(dir, program, target, former).and_then(|()| claim(store, target, former)),
    };
    if let Err(error) = restored {
        tracing::error!("{} is not protected any more: {error}", target.name);
    }
}

/// Makes a row this interface's.
fn claim(store: &Pinned, target: &Target, mode: Mode) -> Result<(), Error> {
    let row = Interface { index: target.index, mode: mode as u32, name: name_bytes(&target.name) };
    let rows = store.interfaces()?;
    let former = rows.get(target.slot as usize);
    if former.is_none_or(|former| former.name != row.name) {
        store.clear_counters(target.slot)?;
    }
    store.set_interface(target.slot, &row)
}

/// A link that was made in generic mode stays so, because changing it would leave a gap.
fn taken_over_note(mode: Mode, wanted: Attach) -> Option<String> {
    (mode == Mode::Generic && wanted != Attach::Generic).then(|| {
        "taken over in generic mode; to try native, end protection with `gateway detach` and start again"
            .to_owned()
    })
}

/// Detaches from the interface of a row and frees the row.
pub(crate) fn release(dir: &PinDir, store: &Pinned, slot: u32) -> Result<(), Error> {
    let index = store.interfaces()?.get(slot as usize).map_or(0, |row| row.index);
    release_link(dir, slot)?;
    // After the program that asks it.
    attach_egress::release(dir, slot)?;
    wait_until_free(index);
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

/// Waits until the kernel has let a hook go: it frees a link a moment after its last reference went, and
/// whoever is told that the program is gone may attach another at once.
pub(crate) fn wait_until_free(index: u32) {
    let until = Instant::now() + Duration::from_secs(1);
    while matches!(xdp_program(index), Ok(Some(_))) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
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
