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
    /// Only these parts of the report
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// By list size, beside an LPM trie
    Lists,
    /// One entry added or deleted beside a long list
    Edit,
    /// Beside xdp-filter
    Filter,
    /// Dropping from a wire, beside nftables
    Wire,
    /// How long `deny import` takes
    Import,
}

impl Part {
    /// As the bench calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Lists => "lists",
            Self::Edit => "edit",
            Self::Filter => "filter",
            Self::Wire => "wire",
            Self::Import => "import",
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !workspace::is_root() {
        bail!("BPF_PROG_TEST_RUN needs root; run `sudo -E cargo xtask bench packet`");
    }
    // A peer that is missing is left out by the benchmark, which says so in its report.
    for missing in tools::ensure_system_programs(&["ip", "bpftool", "nft", "xdp-filter"]) {
        eprintln!("warning: {}", missing.advice());
    }
    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    if wants(Part::Import) {
        let gateway = ["build", "--quiet", "--release", "--locked", "--package", "gateway"];
        process::run(&mut process::cargo(&gateway))?;
    }
    println!("{}", machine::describe());
    println!("{}", peers());
    println!();
    let mut bench =
        process::cargo(&["bench", "--quiet", "--package", "gateway-kernel", "--bench", "packet", "--"]);
    bench.arg("--gateway").arg(workspace::target_dir().join("release/gateway"));
    if !options.only.is_empty() {
        bench.arg("--only").arg(options.only.iter().map(|part| part.name()).collect::<Vec<_>>().join(","));
    }
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
