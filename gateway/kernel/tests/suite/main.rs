//! The packet path and the lists, on the real kernel and on the host, by the same tables.
#![allow(missing_docs, clippy::unwrap_used)]

mod agreement;
mod algebra;
mod answers;
mod fire;
mod frame;
mod lists;
mod named;
mod packets;
mod replies;
mod sources;
mod writers;

use std::io::Write as _;

use gateway_kernel::DefaultVerdict;
use gateway_kernel::sandbox::{Program, Sandbox};

/// The programs with maps of their own; `None`, said loudly, where this process may not use BPF.
fn sandbox() -> Option<Sandbox> {
    sandbox_with(Program::Gateway, DefaultVerdict::Pass)
}

/// The same under another default verdict.
fn sandbox_with(program: Program, default: DefaultVerdict) -> Option<Sandbox> {
    match Sandbox::load_with(program, default) {
        Ok(sandbox) => Some(sandbox),
        Err(error) if !rustix::process::geteuid().is_root() => {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            let line = format!("{test}: the kernel half needs root ({error})");
            eprintln!("SKIPPED {line}");
            if let Some(path) = std::env::var_os("GATEWAY_TEST_SKIPS") {
                let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
                writeln!(file, "{line}").unwrap();
            }
            assert!(std::env::var_os("CI").is_none(), "nothing may be skipped here");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
