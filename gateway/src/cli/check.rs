//! `gateway check`: every mistake of a configuration at once, and what may not be meant.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gateway_kernel::ListKind;

use super::ConfigFile;
use super::failure::{Failure, Outcome};
use super::output::Out;
use crate::agent::environment;
use crate::config::{self, Checked};
use crate::model::Model;

/// What to check, and for whom.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// text for people, json for editors
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Exit with 1 if there is a warning, too
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(arguments: &Arguments, out: &mut Out) -> Outcome {
    let Checked { model, warnings } =
        match (config::check(&arguments.file.config, &environment), arguments.format) {
            (Ok(checked), _) => checked,
            (Err(report), Format::Json) => {
                out.json(&report.json())?;
                return Err(Failure::No);
            }
            (Err(report), Format::Text) => {
                out.text(&report.render(out.color))?;
                return Err(Failure::No);
            }
        };
    match arguments.format {
        Format::Json => {
            let files: Vec<_> = model.config_files.iter().map(|file| file.display().to_string()).collect();
            let (diagnostics, total) = (warnings.json(), warnings.total());
            out.json(&serde_json::json!({ "diagnostics": diagnostics, "total": total, "files": files }))?;
        }
        Format::Text => {
            out.text(&warnings.render(out.color))?;
            out.line(summary(&model))?;
        }
    }
    if arguments.strict && warnings.total() > 0 { Err(Failure::No) } else { Ok(()) }
}

/// What is in a configuration, in a line.
fn summary(model: &Model) -> String {
    let (proxy, kernel) = (&model.proxy, &model.kernel);
    let entries = |kind| -> usize {
        kernel.lists.iter().filter(|list| list.kind == kind).map(|list| list.entries.len()).sum()
    };
    format!(
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
    )
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
    use super::super::output::testing::printed;
    use super::*;

    #[test]
    fn a_warning_is_shown_and_refused_only_by_the_strict() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("gateway.yaml");
        std::fs::write(&config, "upstreams: {u: {endpoints: [http://a]}}\n").expect("a file");
        for (format, strict, expected) in [
            (
                Format::Text,
                false,
                "gateway.yaml:1:13: warning: no route and no listener uses the upstream `u`\n",
            ),
            (Format::Text, true, "\n1 warning\n"),
            (Format::Json, false, "\"severity\": \"warning\""),
            (Format::Json, true, "\"total\": 1"),
        ] {
            let file = ConfigFile { config: config.clone() };
            let mut outcome = None;
            let text = printed(true, |out| {
                outcome = Some(run(&Arguments { file, format, strict }, out));
                Ok::<_, Failure>(())
            });
            assert!(text.contains(expected), "{format:?}: {text}");
            assert_eq!(outcome.is_some_and(|outcome| outcome.is_ok()), !strict, "{format:?}: {text}");
            assert_eq!(text.contains("is sound: "), format == Format::Text, "{text}");
        }
    }

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
