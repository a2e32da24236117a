//! What operators see of a running agent: metrics and logs.

pub(crate) mod access_log;
mod exposition;
pub mod http;
pub mod llm;
pub mod log;
pub mod metrics;
mod rule_labels;
mod snapshot;

pub use exposition::{Exposition, Kind};
pub use rule_labels::{RuleLabels, ShownRules};
pub use snapshot::{AgentSample, KernelSample, render_health};
