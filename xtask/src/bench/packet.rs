//! `bench packet`: nanoseconds a packet by list size, through BPF_PROG_TEST_RUN. The measuring itself is
//! gateway-kernel's bench `packet`, so that these commands need not compile what speaks to the kernel.

use anyhow::{Result, bail};

use super::machine;
use crate::process;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fewer and shorter rounds, without the longest list
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("BPF_PROG_TEST_RUN needs root; run `sudo -E cargo xtask bench packet`");
    }
    println!("{}", machine::describe());
    println!();
    let quick: &[&str] = if options.quick { &["--quick"] } else { &[] };
    let bench = ["bench", "--quiet", "--package", "gateway-kernel", "--bench", "packet", "--"];
    process::run(&mut process::cargo(&[&bench[..], quick].concat()))
}
