//! The proxy over real sockets on loopback: raw bytes in, raw bytes out.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod access_log;
mod announced;
mod balancing;
mod bodies;
mod breakers;
mod connections;
mod cors;
mod discovery;
mod faults;
mod grpc;
mod harness;
mod headers;
mod health;
mod health_wires;
mod hedging;
mod http2;
mod http2_upstreams;
#[cfg(feature = "http3")]
mod http3;
mod interim;
mod lifecycle;
mod llm;
mod mirrors;
mod name_server;
mod parsing;
mod refusals;
mod retries;
mod routing;
mod smuggling;
mod stream_tunnels;
mod streams;
mod tls;
mod trailers;
mod upgrades;
mod upstreams;
