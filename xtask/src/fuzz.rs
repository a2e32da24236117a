//! `cargo xtask fuzz`: each fuzz target for a few seconds, on the stable compiler.
//!
//! cargo-fuzz asks for a nightly, for the address sanitizer. The targets are safe Rust: what they look for is a panic,
//! an overflow, a failed assertion, and for those LLVM's coverage pass is enough, which every compiler has.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::{process, tools, workspace};

/// What libFuzzer wants to be told about: each edge, and the operands of comparisons. Overflow checks and debug
/// assertions stay on.
const RUSTFLAGS: [&str; 10] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=1",
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u32,
    /// Only these targets
    pub(crate) targets: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let all = targets()?;
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        bail!("no fuzz target is called `{unknown}`; there are: {}", all.join(", "));
    }
    if process::find("c++").is_none() {
        tools::apt_install(&["g++"]).context("libFuzzer is C++")?;
    }
    let triple = host_triple()?;
    let fuzz = workspace::root().join("tests/fuzz");
    let mut build = process::cargo(&["build", "--quiet", "--release", "--bins", "--target", &triple]);
    build.arg("--manifest-path").arg(fuzz.join("Cargo.toml")).arg("--target-dir").arg(target_dir());
    // With a target named, these flags stay away from build scripts, which must not wait for a fuzzer's callbacks.
    build.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    process::run(&mut build)?;

    for target in all.iter().filter(|name| options.targets.is_empty() || options.targets.contains(name)) {
        println!("fuzz: {target}, {} s", options.seconds);
        let corpus = fuzz.join("corpus").join(target);
        let artifacts = fuzz.join("artifacts").join(target);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        let mut fuzzer = process::command(target_dir().join(&triple).join("release").join(target));
        fuzzer.arg(&corpus);
        let seeds = fuzz.join("seeds").join(target);
        if seeds.is_dir() {
            fuzzer.arg(seeds);
        }
        fuzzer.arg(format!("-max_total_time={}", options.seconds));
        fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
        fuzzer.args(["-timeout=10", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"]);
        process::run(&mut fuzzer).with_context(|| {
            format!("{target} found something: the input is under tests/fuzz/artifacts/{target}; make it a case of a test")
        })?;
    }
    Ok(())
}

/// The names of the targets: files under tests/fuzz/fuzz_targets, as cargo-fuzz lays them out.
pub(crate) fn targets() -> Result<Vec<String>> {
    let dir = workspace::root().join("tests/fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("{}: no fuzz targets", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    if names.is_empty() {
        bail!("{} is empty", dir.display());
    }
    Ok(names)
}

fn target_dir() -> PathBuf {
    workspace::target_dir().join("fuzz")
}

fn host_triple() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = process::read(process::command(rustc).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}
