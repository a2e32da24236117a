//! `bench packet`: what judging a packet costs, beside its peers. The measuring itself is gateway-kernel's bench
//! `packet`, so that these commands need not compile what speaks to the kernel.

use anyhow::{Result, bail};

use super::machine;
use crate::{process, tools, workspace};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fewer and shorter rounds, without the longest lists: shows that all works
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !workspace::is_root() {
        bail!("BPF_PROG_TEST_RUN needs root; run `sudo -E cargo xtask bench packet`");
    }
    // A peer that is missing is left out by the benchmark, which says so in its report.
    for missing in tools::ensure_system_programs(&["ip", "bpftool", "nft", "xdp-filter"]) {
        eprintln!("warning: {}", missing.advice());
    }
    process::run(&mut process::cargo(&[
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "gateway",
    ]))?;
    println!("{}", machine::describe());
    println!("{}", peers());
    println!();
    let mut bench =
        process::cargo(&["bench", "--quiet", "--package", "gateway-kernel", "--bench", "packet", "--"]);
    bench.arg("--gateway").arg(workspace::target_dir().join("release/gateway"));
    if options.quick {
        bench.arg("--quick");
    }
    process::run(&mut bench)
}

/// The versions of who is measured beside the gateway.
fn peers() -> String {
    let nft = process::find("nft").map(|nft| machine::version_of(&nft, "--version"));
    // xdp-filter does not say its version; the package does.
    let package = ["--show", "--showformat", "${Version}", "xdp-tools"];
    let filter = process::read(process::command("dpkg-query").args(package)).ok();
    let shown = |version: Option<String>| version.unwrap_or_else(|| "of unknown version".to_owned());
    format!("nftables {}; xdp-filter of xdp-tools {}", shown(nft), shown(filter))
}
