//! `gateway run`: the agent, in the foreground.

use super::failure::{Failure, Outcome};
use super::output::colour_wanted;
use super::{ConfigFile, Global};
use crate::agent::{self, Options, StartError};

pub(super) fn run(file: &ConfigFile, global: &Global) -> Outcome {
    let options = Options {
        config: file.config.clone(),
        pin_dir: global.pin_dir.clone(),
        socket: global.socket.clone(),
    };
    agent::run(options).map_err(|error| match error {
        StartError::Config(report) => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && colour_wanted();
            eprint!("{}", report.render(colour));
            Failure::No
        }
        StartError::Kernel(error) => error.into(),
        other => Failure::System(other.to_string()),
    })
}
