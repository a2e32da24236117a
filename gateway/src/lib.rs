//! The agent: everything that runs beside the kernel programs. The binary is a thin door to [`cli`].

mod acme;
pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod discovery;
mod files;
pub mod mock_provider;
pub mod model;
pub mod observe;
pub mod proxy;
pub mod sources;
mod tls;
