//! The load: who puts it on an address, what was counted, and a second pair of eyes that reads whole replies meanwhile.

mod h2load;
pub(crate) mod idle;
mod paced;
pub(crate) mod probe;
pub(in crate::bench) mod threads;
mod websocket;
pub(in crate::bench) mod wrk;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::scene::Scene;

/// Connections, or streams, at the same time.
pub(crate) const CONNECTIONS: usize = 32;

/// What one run counted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) requests_per_s: f64,
    /// Not everybody who loads tells them.
    pub(crate) latency: Option<Latency>,
}

/// From a request to the end of its reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Not everybody who loads tells it.
    pub(crate) p999_us: Option<f64>,
}

/// How an address is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) scene: Scene,
    pub(crate) address: SocketAddr,
    pub(crate) seconds: u32,
    /// Requests a second over all connections, in [`Scene::Latency`] and [`Scene::Reloads`].
    pub(crate) rate: f64,
    /// For scripts.
    pub(crate) dir: &'a Path,
}

impl Load<'_> {
    /// Loads the address; fails on any reply that is not the expected one.
    pub(crate) fn run(&self) -> Result<Report> {
        match self.scene {
            Scene::H2 => h2load::run(self),
            Scene::Websocket => websocket::run(self),
            Scene::Latency | Scene::Reloads => paced::run(self),
            _ => wrk::run(self),
        }
    }
}
