//! `gateway man`: the manual pages, from the same definitions that parse the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::Cli;
use super::failure::{Failure, Outcome};

/// Where to write them.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The directory, which is created if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .map_err(|error| {
            Failure::System(format!("cannot write manual pages into {}: {error}", directory.display()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        run(&Arguments { directory: directory.path().join("man1") }).expect("written");
        for page in [
            "gateway.1",
            "gateway-run.1",
            "gateway-deny-add.1",
            "gateway-explain-packet.1",
            "gateway-translate.1",
        ] {
            let text = std::fs::read_to_string(directory.path().join("man1").join(page)).expect(page);
            assert!(text.contains(".SH NAME"), "{page}");
        }
    }
}
