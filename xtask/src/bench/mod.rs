//! `cargo xtask bench`: each benchmark is a file of its own and prints one Markdown table.

mod machine;
mod packet;
pub(crate) mod request;
mod table;

use anyhow::Result;
use clap::Subcommand;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What judging a packet costs by the length of the deny list, beside an LPM trie, xdp-filter and nftables
    Packet(packet::Options),
    /// Processor time a request and requests per second on one core, beside nginx, HAProxy and a bare relay
    Request(request::Options),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Packet(options) => packet::run(options),
        What::Request(options) => request::run(options),
    }
}
