//! Where figures were taken: without that they mean nothing.

use std::fs;
use std::path::Path;

use crate::process;

/// One line about the machine.
pub(crate) fn describe() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system =
        system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown system");
    format!(
        "{}, {cores} cores; Linux {}; {}",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        system.trim_matches('"')
    )
}

/// How many processes ran on average over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|figure| figure.parse().ok()).unwrap_or(0.0)
}

/// What a program says of its version: the first word that looks like one.
pub(crate) fn version_of(program: &Path, flag: &str) -> String {
    // wrk shows its version with a usage message and an exit code that says so; the words count.
    let Ok(output) = process::command(program).arg(flag).output() else { return "?".into() };
    let text = [output.stdout, output.stderr].concat();
    first_version(&String::from_utf8_lossy(&text)).unwrap_or_else(|| "?".into())
}

fn first_version(text: &str) -> Option<String> {
    let looks_right = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    let word = text
        .split([' ', '/', '\n', '\t'])
        .map(|word| word.strip_prefix('v').unwrap_or(word))
        .find(looks_right)?;
    Some(word.split(['-', '+', '~']).next().unwrap_or(word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let cases = [
            ("nginx", "nginx version: nginx/1.22.1\n", Some("1.22.1")),
            ("haproxy", "HAProxy version 2.6.12-1+deb12u4 2026/06/01 - https://x\n", Some("2.6.12")),
            ("wrk", "wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012\n", Some("4.1.0")),
            ("nft", "nftables v1.0.6 (Lester Gooch #5)\n", Some("1.0.6")),
            ("clap", "gateway 0.1.0\n", Some("0.1.0")),
            ("nothing", "usage: x\n", None),
        ];
        for (name, text, expected) in cases {
            assert_eq!(first_version(text).as_deref(), expected, "{name}");
        }
    }
}
