//! The kernel programs, embedded. `cargo xtask ebpf` builds the object; it is committed, so that plain
//! stable Rust gives the whole agent.

use std::path::Path;

use aya::programs::{SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use gateway_common::abi::{EGRESS_PROGRAM, FlowTable, SLOT_GLOBAL, XDP_PROGRAM};

use crate::entry::DefaultVerdict;
use crate::error::Error;
use crate::flows::capacity;
use crate::store::kernel;

/// The object, aligned as its reader needs it.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/ebpf/gateway.bpf.o"));

/// Makes and pins whatever maps are missing, with room for the flows that the default verdict needs.
pub(crate) fn make_maps(maps: &Path, default: DefaultVerdict) -> Result<(), Error> {
    load_with(0, maps, default).map(drop)
}

/// The programs for one interface, with the maps that [`make_maps`] made.
pub(crate) fn load(slot: u32, maps: &Path) -> Result<Ebpf, Error> {
    load_with(slot, maps, DefaultVerdict::Pass)
}

fn load_with(slot: u32, maps: &Path, default: DefaultVerdict) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    loader
        .default_map_pin_directory(maps)
        // A definition in BTF cannot say itself that it is to be pinned.
        .map_pin_path("tables", maps.join("tables"))
        .override_global(SLOT_GLOBAL, &slot, true);
    // Only for maps that are made now: one that is pinned is taken as it is.
    for table in [FlowTable::New, FlowTable::Established] {
        loader.map_max_entries(table.name(), capacity(table, default));
    }
    loader.load(&object()?).map_err(|error| {
        // Making maps needs no verifier, so a refusal here is one of privilege, whatever the
        // capabilities say: a user namespace, or a filter on system calls.
        if refused_for_privilege(&error) {
            Error::Privilege { what: "making BPF maps".to_owned() }
        } else {
            kernel("load the gateway's programs", error)
        }
    })
}

fn refused_for_privilege(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied)
}

#[cfg(not(feature = "ebpf-log"))]
fn object() -> Result<std::borrow::Cow<'static, [u8]>, Error> {
    Ok(OBJECT.into())
}

/// A debug build of the programs stands in for the embedded one; only a debug agent lets it.
#[cfg(feature = "ebpf-log")]
fn object() -> Result<std::borrow::Cow<'static, [u8]>, Error> {
    const VARIABLE: &str = "GATEWAY_EBPF_OBJECT";
    let Some(path) = std::env::var_os(VARIABLE) else { return Ok(OBJECT.into()) };
    let bytes = std::fs::read(&path).map_err(|error| Error::Kernel {
        what: format!("use {} as {VARIABLE} says", path.display()),
        why: error.to_string(),
    })?;
    Ok(bytes.into())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::programs::Program, Error> {
    ebpf.program_mut(name).ok_or_else(|| Error::Kernel {
        what: format!("find the program {name}"),
        why: "the embedded object does not have it; rebuild it with `cargo xtask ebpf`".to_owned(),
    })
}

/// The program that remembers what an interface sends, verified and ready to attach.
pub(crate) fn egress(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, Error> {
    let program: &mut SchedClassifier =
        program(ebpf, EGRESS_PROGRAM)?.try_into().map_err(|error| kernel("use the egress program", error))?;
    program.load().map_err(|error| kernel("verify the egress program", error))?;
    Ok(program)
}

/// One XDP program of the object, verified and ready to attach.
pub(crate) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program: &mut Xdp =
        program(ebpf, name)?.try_into().map_err(|error| kernel("use an XDP program", error))?;
    program.load().map_err(|error| kernel("verify the XDP program", error))?;
    Ok(program)
}

/// The program that judges an interface's packets.
pub(crate) fn gateway(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    xdp(ebpf, XDP_PROGRAM)
}
