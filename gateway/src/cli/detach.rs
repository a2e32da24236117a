//! `gateway detach`: ends the protection that outlives the agent.

use super::Global;
use super::failure::Outcome;
use super::output::{Out, clean};

pub(super) fn run(global: &Global, out: &mut Out) -> Outcome {
    let released = gateway_kernel::detach(&global.pin_dir)?;
    if released.is_empty() {
        out.line("no interface was protected; the maps are gone")?;
    }
    for interface in released {
        out.line(format!("{} is no longer protected", clean(&interface)))?;
    }
    Ok(())
}
