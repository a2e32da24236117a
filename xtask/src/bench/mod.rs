//! `cargo xtask bench`: each benchmark is a file of its own and prints one Markdown table.

pub(crate) mod llm;
mod machine;
mod packet;
pub(crate) mod request;
mod scratch;
mod table;
mod wheels;

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
    /// What a request to a model costs above plain hyper, passed, spliced and translated, beside other LLM gateways
    Llm(llm::Options),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Packet(options) => packet::run(options),
        What::Request(options) => request::run(options),
        What::Llm(options) => llm::run(options),
    }
}
