//! End to end: real packets through real hooks, real requests through a real proxy, in namespaces of the
//! tests' own. A file a subject; a test a behaviour.

#![allow(clippy::unwrap_used, reason = "tests")]

mod acme;
mod attach;
mod bad_input;
mod config;
mod default_drop;
mod deny;
mod discovery;
mod drain;
mod events;
mod feeds;
mod harness;
mod hostile_http;
mod imports;
mod inspect;
mod lists;
mod llm_golden_types;
mod llm_sdks;
mod odd_frames;
mod proxy;
mod real_servers;
mod reload;
mod sources;
mod takeover;
mod tls;
mod translate;
mod userspace;
