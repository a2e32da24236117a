//! `gateway completions`: a shell's completion script, from the same definitions that parse the command line.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::failure::Outcome;
use super::output::Out;

/// For which shell.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, out: &mut Out) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "gateway", &mut script);
    Ok(out.text(&String::from_utf8_lossy(&script))?)
}
