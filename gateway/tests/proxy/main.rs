//! The proxy over real sockets on loopback: raw bytes in, raw bytes out.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod announced;
mod harness;
mod lifecycle;
mod parsing;
mod smuggling;
mod tls;
mod upstreams;
