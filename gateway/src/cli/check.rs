//! `gateway check`: every mistake of a configuration at once.

use clap::{Args, ValueEnum};
use gateway_kernel::ListKind;

use super::ConfigFile;
use super::failure::{Failure, Outcome};
use super::output::Out;
use crate::agent::environment;
use crate::config;

/// What to check, and for whom.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// text for people, json for editors
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(arguments: &Arguments, out: &mut Out) -> Outcome {
    let path = &arguments.file.config;
    match (config::load(path, &environment), arguments.format) {
        (Ok(_), Format::Json) => Ok(out.json(&serde_json::json!({ "diagnostics": [], "total": 0 }))?),
        (Ok(model), Format::Text) => {
            let (proxy, kernel) = (&model.proxy, &model.kernel);
            let entries = |kind| -> usize {
                kernel.lists.iter().filter(|list| list.kind == kind).map(|list| list.entries.len()).sum()
            };
            Ok(out.line(format!(
                "{} is sound: {} interfaces, {} listeners, {} routes, {} upstreams, {} deny and {} allow entries in {} lists",
                path.display(),
                kernel.interfaces.len(),
                proxy.listeners.len(),
                proxy.routes.len(),
                proxy.upstreams.len(),
                entries(ListKind::Deny),
                entries(ListKind::Allow),
                kernel.lists.len(),
            ))?)
        }
        (Err(report), Format::Json) => {
            out.json(&report.json())?;
            Err(Failure::No)
        }
        (Err(report), Format::Text) => {
            out.text(&report.render(out.color))?;
            Err(Failure::No)
        }
    }
}
