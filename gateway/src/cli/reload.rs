//! `gateway reload`: makes the running agent load its configuration again, and says what came of it.

use super::Global;
use super::failure::Outcome;
use super::output::{Out, clean};

pub(super) fn run(global: &Global, out: &mut Out) -> Outcome {
    let reloaded = global.agent()?.0.reload()?;
    out.line(format!("the configuration is in force; its hash is {}", clean(&reloaded.hash)))?;
    for what in &reloaded.needs_restart {
        out.line(format!("{} changed, which takes a restart", clean(what)))?;
    }
    Ok(())
}
