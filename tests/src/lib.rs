//! The harness of the end-to-end suite: three hosts on two wires ([`Net`]), the program under test
//! ([`Agent`]), what it forwards to ([`Upstream`]), what reaches it ([`http`], [`frames`], [`Traffic`]).
//!
//! Everything a test makes is its own: namespaces, pins, directories and processes carry the id of the
//! test's process in their names, go with the value that holds them, and are swept away by the next run
//! if the process was killed. No packet leaves the machine: the namespaces have no route out.

#![allow(clippy::unwrap_used, reason = "a harness that cannot go on must fail its test there and then")]

mod agent;
mod binary;
pub mod frames;
pub mod http;
mod list_server;
mod metrics;
mod namespace;
mod net;
mod poll;
mod skip;
mod sweep;
mod traffic;
mod upstream;

pub use agent::{Agent, Answer, Setup};
pub use binary::gateway_binary;
pub use list_server::ListServer;
pub use metrics::Metrics;
pub use namespace::Namespace;
pub use net::{
    CLIENT_MAC, CLIENT_V4, CLIENT_V6, DENIED_V4, DENIED_V6, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Net,
    UPSTREAM_V4, UPSTREAM_V6,
};
pub use poll::{eventually, steady};
pub use skip::{lacks_root, skip};
pub use traffic::{Receipt, Traffic};
pub use upstream::{Nginx, Upstream};

/// Leaves the test, with the reason on record, where the process may not make namespaces.
#[macro_export]
macro_rules! require_root {
    () => {
        if let Some(why) = $crate::lacks_root() {
            $crate::skip(&why);
            return;
        }
    };
}
