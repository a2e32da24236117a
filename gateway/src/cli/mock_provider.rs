//! `gateway mock-provider`: the demo's provider of language models, as a server of its own. Hidden, as it is for tests
//! of the gateway and of what talks to it.

use std::net::{SocketAddr, TcpListener};

use super::failure::{Failure, Outcome};
use super::output::Out;
use crate::mock_provider::MockProvider;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    address: SocketAddr,
}

pub(super) fn run(arguments: &Arguments, out: &mut Out) -> Outcome {
    let cannot = |error| Failure::System(format!("cannot listen on {}: {error}", arguments.address));
    let provider = MockProvider::on(TcpListener::bind(arguments.address).map_err(cannot)?, None)?;
    // Whoever started this reads the line to find the port.
    out.line(format!("the mock provider listens on http://{}", provider.address()))?;
    out.flush()?;
    provider.join();
    Ok(())
}
