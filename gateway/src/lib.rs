//! The agent: everything that runs beside the kernel programs. The binary is a thin door to [`cli`].

pub mod config;
pub mod model;
