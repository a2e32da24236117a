//! `gateway check`: every mistake of a configuration at once.

use std::path::{Path, PathBuf};

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
        (Ok(model), Format::Json) => {
            let files: Vec<_> = model.config_files.iter().map(|file| file.display().to_string()).collect();
            Ok(out.json(&serde_json::json!({ "diagnostics": [], "total": 0, "files": files }))?)
        }
        (Ok(model), Format::Text) => {
            let (proxy, kernel) = (&model.proxy, &model.kernel);
            let entries = |kind| -> usize {
                kernel.lists.iter().filter(|list| list.kind == kind).map(|list| list.entries.len()).sum()
            };
            Ok(out.line(format!(
                "{} {} sound: {} interfaces, {} listeners, {} routes, {} upstreams, {} deny and {} allow entries in {} lists",
                files(&model.config_files),
                if model.config_files.len() > 1 { "are" } else { "is" },
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

/// The files that were read, the main one by its whole path: `gateway.yaml with conf.d/a.yaml`.
fn files(files: &[PathBuf]) -> String {
    let Some((main, parts)) = files.split_first() else { return String::new() };
    let base = main.parent().unwrap_or(Path::new(""));
    let part = |part: &PathBuf| part.strip_prefix(base).unwrap_or(part).display().to_string();
    let parts = parts.iter().map(part).collect::<Vec<_>>().join(", ");
    match parts.as_str() {
        "" => main.display().to_string(),
        parts => format!("{} with {parts}", main.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_from_the_main_file_on() {
        for (paths, expected) in [
            (&["gateway.yaml"][..], "gateway.yaml"),
            (&["/etc/g/gateway.yaml"], "/etc/g/gateway.yaml"),
            (&["gateway.yaml", "conf.d/a.yaml"], "gateway.yaml with conf.d/a.yaml"),
            (
                &["/etc/g/gateway.yaml", "/etc/g/conf.d/a.yaml", "/etc/g/conf.d/b.yaml"],
                "/etc/g/gateway.yaml with conf.d/a.yaml, conf.d/b.yaml",
            ),
        ] {
            assert_eq!(files(&paths.iter().map(PathBuf::from).collect::<Vec<_>>()), expected);
        }
    }
}
