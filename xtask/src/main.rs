//! The project's own commands, one file each: `cargo xtask ebpf | test | fuzz | bench | ci`.
//!
//! They need nothing but stable Rust to start. What a command needs beyond that it looks for, installs where it
//! can, and otherwise names with the command that installs it.

mod bench;
mod ci;
mod ebpf;
mod fuzz;
mod process;
mod sdks;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What `cargo xtask` reads from its command line.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel programs, or prove that the committed object is the one the sources give
    Ebpf(ebpf::Options),
    /// Run every test, and say what was skipped and why
    Test(test::Options),
    /// Run each fuzz target for a few seconds
    Fuzz(fuzz::Options),
    /// Measure, and print a Markdown table
    Bench(bench::Options),
    /// Everything that a change must pass
    Ci(ci::Options),
    /// Copy bytes between sockets and nothing else: the floor in `bench request`
    #[command(hide = true)]
    Relay(bench::request::relay::Options),
    /// The server behind every proxy in `bench request`
    #[command(hide = true)]
    Origin(bench::request::origin::Options),
    /// The provider behind every gateway in `bench llm`
    #[command(hide = true)]
    LlmOrigin(bench::llm::origin::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Ebpf(options) => ebpf::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Ci(options) => ci::run(&options),
        Command::Relay(options) => bench::request::relay::run(&options),
        Command::Origin(options) => bench::request::origin::run(&options),
        Command::LlmOrigin(options) => bench::llm::origin::run(&options),
    }
}
