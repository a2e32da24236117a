//! What the documents promise: links that lead somewhere, commands that exist, no path of anybody's machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::CommandFactory;

use crate::{Cli, process, workspace};

/// Checks relative links in every Markdown file, and every tracked file for paths of this machine.
pub(crate) fn check() -> Result<()> {
    let root = workspace::root();
    let needles = machine_paths(&root);
    let mut findings = Vec::new();
    for name in tracked()? {
        let path = root.join(&name);
        // A tracked file may be deleted in the tree, and a link may lead to a directory.
        let Ok(bytes) = fs::read(&path) else { continue };
        for needle in &needles {
            if mentions(&bytes, needle.as_bytes()) {
                findings.push(format!("{name}: mentions {needle}, a path of one machine"));
            }
        }
        if name.ends_with(".md") {
            let text = String::from_utf8_lossy(&bytes);
            let dir = path.parent().unwrap_or(&root);
            let dead = relative_links(&text).into_iter().filter(|link| !dir.join(link).exists());
            findings.extend(dead.map(|link| format!("{name}: the link to {link} leads nowhere")));
        }
    }
    if !findings.is_empty() {
        bail!("{}", findings.join("\n"));
    }
    Ok(())
}

/// Checks that what a README tells people to type is there: subcommands of xtask and of the gateway, files, programs.
pub(crate) fn check_commands(readme: &Path) -> Result<()> {
    let text = fs::read_to_string(readme).with_context(|| format!("{} cannot be read", readme.display()))?;
    let commands = shell_commands(&text);
    if commands.is_empty() {
        bail!("{}: no command in a `sh` block", readme.display());
    }
    for command in commands {
        check_command(&command).with_context(|| format!("README.md: `{command}`"))?;
        println!("{command}");
    }
    Ok(())
}

fn check_command(command: &str) -> Result<()> {
    let words: Vec<&str> =
        command.split_whitespace().skip_while(|word| *word == "sudo" || word.contains('=')).collect();
    match words.as_slice() {
        ["cargo", "xtask", args @ ..] => known_to(Cli::command(), args),
        ["cargo", "run", rest @ ..] => match rest.iter().position(|word| *word == "--") {
            Some(end) => known_to_gateway(&rest[end + 1..]),
            None => Ok(()),
        },
        ["cargo", verb, ..] => process::read(&mut process::cargo(&["help", verb]))
            .map(|_| ())
            .context("cargo has no such command"),
        ["gateway" | "target/release/gateway" | "./target/release/gateway", args @ ..] => {
            known_to_gateway(args)
        }
        [program, ..] if process::find(program).is_some() || workspace::root().join(program).is_file() => {
            Ok(())
        }
        [program, ..] => bail!("there is no `{program}`"),
        [] => Ok(()),
    }
}

/// Follows subcommands by name and flags by their long names; values are not looked at.
fn known_to(mut command: clap::Command, args: &[&str]) -> Result<()> {
    for arg in args {
        if let Some(flag) = arg.strip_prefix("--") {
            let name = flag.split('=').next().unwrap_or(flag);
            let known = command.get_arguments().any(|known| known.get_long() == Some(name)) || name == "help";
            if !known {
                bail!("{} has no --{name}", command.get_name());
            }
        } else if command.has_subcommands() {
            let found = command.find_subcommand(arg).cloned();
            command = found.with_context(|| format!("{} has no command `{arg}`", command.get_name()))?;
        }
    }
    Ok(())
}

/// Asks the built gateway for the help of the subcommand; options before it are the gateway's own.
fn known_to_gateway(args: &[&str]) -> Result<()> {
    let gateway = workspace::target_dir().join("release/gateway");
    if !gateway.is_file() {
        bail!("{} is not built", gateway.display());
    }
    let is_name = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase());
    let subcommand: Vec<&&str> = args.iter().take_while(is_name).take(2).collect();
    // The second word may be an argument and not a subcommand: then the first alone must be known.
    let asks = |words: &[&&str]| {
        let mut help = process::command(&gateway);
        process::read(help.args(words.iter().map(|word| **word)).arg("--help")).map(|_| ())
    };
    asks(&subcommand).or_else(|error| if subcommand.len() == 2 { asks(&subcommand[..1]) } else { Err(error) })
}

/// The lines that people type: those of fenced blocks marked `sh`, without comments and prompts.
fn shell_commands(markdown: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in markdown.lines().map(str::trim) {
        if let Some(language) = line.strip_prefix("```") {
            inside = !inside && matches!(language, "sh" | "bash" | "console" | "shell");
            continue;
        }
        let line = line.strip_prefix("$ ").unwrap_or(line);
        let line = line.split(" #").next().unwrap_or(line).trim();
        if inside && !line.is_empty() && !line.starts_with('#') {
            commands.push(line.to_owned());
        }
    }
    commands
}

/// Targets of links and pictures that are files of the project, without their fragments. Code is left out.
fn relative_links(markdown: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece between backticks is code.
        for prose in line.split('`').step_by(2) {
            for rest in prose.split("](").skip(1) {
                let target = rest.split([')', ' ']).next().unwrap_or_default();
                let file = target.split('#').next().unwrap_or_default();
                if !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:") {
                    links.push(file.to_owned());
                }
            }
        }
    }
    links
}

/// What no tracked file may hold: the places of this checkout and of its user, and where users usually live.
fn machine_paths(root: &Path) -> Vec<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let own = [Some(root.to_path_buf()), home].into_iter().flatten().map(|path| path.display().to_string());
    // A checkout in the root directory or a user without a home would forbid `/`.
    let mut paths: Vec<String> = own.filter(|path| path.len() > 1).map(|path| format!("{path}/")).collect();
    paths.extend(["home", "root"].map(|dir| format!("/{dir}/")));
    paths.sort();
    paths.dedup();
    paths
}

/// Whether the path stands in the bytes, and not as a part of a longer path or of an address.
fn mentions(bytes: &[u8], needle: &[u8]) -> bool {
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-/:}".contains(&byte);
    bytes.windows(needle.len()).enumerate().any(|(at, window)| {
        window == needle && at.checked_sub(1).is_none_or(|before| !is_path(bytes[before]))
    })
}

fn tracked() -> Result<Vec<String>> {
    let list = process::read(process::command("git").args(["ls-files", "-z"]))?;
    Ok(list.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let cases: [(&str, &str, &[&str]); 7] = [
            ("file", "see [a](docs/A.md) and [b](B.md#part)", &["docs/A.md", "B.md"]),
            ("picture", "![p](p.svg)", &["p.svg"]),
            ("with a title", "[a](a.md \"A\")", &["a.md"]),
            ("elsewhere", "[a](https://example.com/a.md) [m](mailto:a@example.com)", &[]),
            ("in the page", "[a](#part)", &[]),
            ("code", "`[a](b.md)` but [c](d.md)", &["d.md"]),
            ("fenced", "```\n[a](b.md)\n```\n[c](d.md)", &["d.md"]),
        ];
        for (name, text, expected) in cases {
            assert_eq!(relative_links(text), expected, "{name}");
        }
    }

    #[test]
    fn commands_to_type() {
        let cases: [(&str, &str, &[&str]); 4] = [
            (
                "sh",
                "```sh\ncargo run -- demo   # all of it\n\n# note\n$ ls\n```",
                &["cargo run -- demo", "ls"],
            ),
            ("other language", "```yaml\nroutes: {}\n```", &[]),
            ("no language", "```\noutput\n```", &[]),
            ("prose between", "```sh\na\n```\nb\n```console\nc\n```", &["a", "c"]),
        ];
        for (name, text, expected) in cases {
            assert_eq!(shell_commands(text), expected, "{name}");
        }
    }

    #[test]
    fn own_commands() {
        let cases: [(&str, &[&str], bool); 6] = [
            ("command", &["test"], true),
            ("flag", &["ebpf", "--check"], true),
            ("nested", &["bench", "request", "--rounds", "7"], true),
            ("argument", &["test", "parse"], true),
            ("unknown command", &["tests"], false),
            ("unknown flag", &["ebpf", "--checks"], false),
        ];
        for (name, args, expected) in cases {
            assert_eq!(known_to(Cli::command(), args).is_ok(), expected, "{name}");
        }
    }

    #[test]
    fn machine_paths_in_files() {
        let cases = [
            ("alone", "see /a/b/c", true),
            ("at the start", "/a/b/", true),
            ("in binary data", "\u{1}\0/a/b/x\0", true),
            ("quoted", "\"/a/b/x\"", true),
            ("a longer path", "/x/a/b/c", false),
            ("an address", "https://example.com/a/b/c", false),
            ("another directory", "/a/bc/d", false),
        ];
        for (name, text, expected) in cases {
            assert_eq!(mentions(text.as_bytes(), b"/a/b/"), expected, "{name}");
        }
    }
}
