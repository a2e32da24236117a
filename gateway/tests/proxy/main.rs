//! The proxy over real sockets on loopback: raw bytes in, raw bytes out.

mod harness;
mod lifecycle;
mod parsing;
mod upstreams;
