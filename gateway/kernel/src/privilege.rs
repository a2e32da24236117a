//! Whether this process may use BPF, from its own capabilities.

use rustix::thread::{CapabilitySet, capabilities};

use crate::entry::Attach;
use crate::error::Error;
use crate::protection::Plan;

/// Why the plan runs in userspace; `None` is in the kernel.
///
/// # Errors
/// [`Error::Privilege`], if the plan insists on the kernel and the process may not use it.
pub(crate) fn why_userspace(plan: &Plan) -> Result<Option<String>, Error> {
    if plan.attach == Attach::Off {
        return Ok(Some("kernel.attach is off".to_owned()));
    }
    if plan.interfaces.is_empty() {
        return Ok(Some("kernel.interfaces names no interface".to_owned()));
    }
    match (lacking(), plan.attach) {
        (None, _) => Ok(None),
        (Some(lacking), Attach::Auto | Attach::Off) => {
            Ok(Some(format!("the process lacks {lacking}, which XDP needs")))
        }
        (Some(_), Attach::Native | Attach::Generic) => {
            Err(Error::Privilege { what: "attaching XDP programs, as kernel.attach asks,".to_owned() })
        }
    }
}

/// The capability that lacks, if one does. CAP_SYS_ADMIN stands for the narrower ones, as in the kernel.
fn lacking() -> Option<&'static str> {
    let held = match capabilities(None) {
        Ok(sets) => sets.effective,
        Err(_) => return Some("readable capabilities"),
    };
    if held.contains(CapabilitySet::SYS_ADMIN) && held.contains(CapabilitySet::NET_ADMIN) {
        return None;
    }
    if !held.contains(CapabilitySet::NET_ADMIN) {
        return Some("CAP_NET_ADMIN");
    }
    if !held.contains(CapabilitySet::BPF) {
        return Some("CAP_BPF");
    }
    None
}
