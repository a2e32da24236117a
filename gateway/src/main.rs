//! The `gateway` program: a door to the library, where everything can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main()
}
