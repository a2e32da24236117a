//! A seam that stands for the proxy until it lands: the same names and types, and it serves nothing.
#![allow(missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model;

pub type Admission = Arc<dyn Fn(SocketAddr, SocketAddr) -> bool + Send + Sync>;

#[derive(Debug)]
pub struct Proxy;

#[derive(Debug, thiserror::Error)]
#[error("the proxy is not here yet")]
pub struct ProxyError;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reloaded {
    pub workers_need_restart: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    pub cut: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub workers: usize,
    pub listeners: Vec<ListenerStatus>,
    pub endpoints: Vec<EndpointStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    pub name: String,
    pub address: SocketAddr,
    pub connections: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    pub upstream: String,
    pub endpoint: String,
    pub idle: usize,
    pub in_use: usize,
    pub last_error: Option<String>,
}

impl Proxy {
    pub fn start(_model: &model::Proxy, _admission: Admission) -> Result<Self, ProxyError> {
        Ok(Self)
    }

    pub fn reload(&self, _model: &model::Proxy) -> Result<Reloaded, ProxyError> {
        Ok(Reloaded::default())
    }

    pub fn drain(&self, _timeout: Duration) -> impl Future<Output = Drained> + use<> {
        std::future::ready(Drained::default())
    }

    pub fn status(&self) -> Status {
        Status { workers: 0, listeners: Vec::new(), endpoints: Vec::new() }
    }
}
