//! The admin API: what scrapers and commands ask a running agent, and how it answers.

mod client;
pub mod events;
mod live;
mod request;
mod server;
mod socket;
mod status;

pub use client::{Client, ClientError};
pub use live::{Live, ProxyStatus, ReloadOrder};
pub use request::{AddBody, Batch, ExplainBody, RemoveBody, Reply, Request, WireEntry, apply};
pub use server::{MAX_BODY_BYTES, serve_tcp, serve_unix};
pub use socket::{AdminSocket, SocketError};
pub use status::{AgentStatus, ConfigStatus, Identity, Phase, Problem, ReloadStatus, Reloaded, Status};

#[cfg(test)]
pub(crate) mod tests;
