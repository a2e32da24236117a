//! x
mod node;
mod report;
pub use report::*;
