//! The admin API: what scrapers and commands ask a running agent, and how it answers.

mod client;
pub mod events;
pub mod feeds;
mod filter;
mod live;
mod recent;
mod request;
mod server;
mod socket;
mod status;

pub use client::{Client, ClientError};
pub use filter::{BadFilter, Filter, MAX_TERMS};
pub use live::{Live, ProxyHealth, ProxyStatus, ReloadOrder};
pub use recent::{EVENTS_A_SOURCE, MAX_SOURCES, Recent};
pub use request::{
    AddBody, Batch, ConfirmBody, ExplainBody, Explained, ImportBody, NameBody, RemoveBody, Reply, Request,
    SourcesBody, WireEntry, apply, check_evidence,
};
pub use server::{MAX_BODY_BYTES, serve_tcp, serve_unix};
pub use socket::{AdminSocket, SocketError};
pub use status::{AgentStatus, ConfigStatus, Identity, Phase, Problem, ReloadStatus, Reloaded, Status};

#[cfg(test)]
pub(crate) mod tests;
