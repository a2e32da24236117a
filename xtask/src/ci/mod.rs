//! `cargo xtask ci`: everything that a change must pass, in order; the first failure ends the run.

mod documents;

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::ebpf::Lint;
use crate::{ebpf, fuzz, process, tools, workspace};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only the steps whose names contain this
    #[arg(long)]
    only: Option<String>,
}

/// One step: its name, what to type to run it alone, and what it does.
struct Step {
    name: &'static str,
    alone: &'static str,
    run: fn() -> Result<()>,
}

/// The quick ones first where the order is free; `ebpf` before what embeds its object.
const STEPS: [Step; 15] = [
    Step { name: "tools", alone: "cargo xtask ci --only tools", run: install_tools },
    Step { name: "format", alone: "cargo fmt --all", run: format },
    Step { name: "typos", alone: "typos", run: typos },
    Step { name: "documents", alone: "cargo xtask ci --only documents", run: documents::check },
    Step { name: "dependencies", alone: "cargo xtask ci --only dependencies", run: dependencies },
    Step { name: "kernel object", alone: "cargo xtask ebpf", run: kernel_object },
    Step { name: "lint", alone: "cargo xtask ci --only lint", run: lint },
    Step { name: "kernel lint", alone: "cargo xtask ci --only 'kernel lint'", run: kernel_lint },
    Step { name: "rustdoc", alone: "cargo xtask ci --only rustdoc", run: rustdoc },
    Step { name: "test", alone: "cargo xtask test", run: test },
    Step { name: "fuzz", alone: "cargo xtask fuzz", run: fuzz_each },
    Step { name: "release", alone: "cargo build --release", run: release },
    Step { name: "demo", alone: "cargo run --release -- demo", run: demo },
    Step { name: "bench", alone: "cargo xtask bench request --quick", run: bench },
    Step { name: "readme", alone: "cargo xtask ci --only readme", run: readme },
];

/// How long each fuzz target runs: long enough to find what a change has just broken.
const FUZZ_SECONDS: u32 = 20;

pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = |step: &&Step| options.only.as_ref().is_none_or(|only| step.name.contains(only.as_str()));
    let steps: Vec<&Step> = STEPS.iter().filter(wanted).collect();
    if steps.is_empty() {
        bail!("no step of that name; there are: {}", STEPS.map(|step| step.name).join(", "));
    }
    let begin = Instant::now();
    for (passed, step) in steps.iter().enumerate() {
        println!("\n==> {}", step.name);
        let step_begin = Instant::now();
        let outcome = (step.run)();
        let elapsed_s = step_begin.elapsed().as_secs_f64();
        if let Err(error) = outcome {
            eprintln!("error: {error:#}");
            println!("==> {} FAILED after {elapsed_s:.1} s; run: {}", step.name, step.alone);
            println!("{} of {} steps were not reached", steps.len() - passed - 1, steps.len());
            println!("{passed} passed, 1 failed");
            // The count is the last line; what went wrong stands above it.
            std::process::exit(1);
        }
        println!("==> {} passed in {elapsed_s:.1} s", step.name);
    }
    println!("\nall in {:.0} s", begin.elapsed().as_secs_f64());
    println!("{} passed, 0 failed", steps.len());
    Ok(())
}

fn install_tools() -> Result<()> {
    let names = tools::SYSTEM_PROGRAMS.map(|program| program.name);
    if let Some(program) = tools::ensure_system_programs(&names).first() {
        bail!("{}", program.advice());
    }
    for tool in [tools::NEXTEST, tools::TYPOS, tools::DENY] {
        println!("{}", tool.ensure()?.display());
    }
    for component in ["fmt", "clippy"] {
        process::read(&mut process::cargo(&[component, "--version"]))
            .with_context(|| format!("rustup component add {component}"))?;
    }
    ebpf::ensure_toolchain()
}

fn format() -> Result<()> {
    process::run(&mut process::cargo(&["fmt", "--all", "--check"]))
}

fn typos() -> Result<()> {
    process::run(&mut process::command(tools::TYPOS.ensure()?))
}

/// Licences, bans and sources. Advisories need a database from the network: .deny.toml says how to check them.
fn dependencies() -> Result<()> {
    // All that the lock names must be here before anybody works offline.
    process::run(&mut process::cargo(&["fetch", "--quiet", "--locked"]))?;
    let mut deny = process::command(tools::DENY.ensure()?);
    deny.args([
        "--offline",
        "--locked",
        "--workspace",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    process::run(deny.env("CARGO", workspace::cargo()))
}

/// Compares first, then puts the rebuilt object in the tree: what follows tests and measures that one.
fn kernel_object() -> Result<()> {
    xtask(&["ebpf", "--check"])?;
    xtask(&["ebpf"])?;
    xtask(&["ebpf", "--debug"])
}

fn lint() -> Result<()> {
    // As it is built, and as it is tested.
    for features in [&[][..], &["--features=gateway/http3"]] {
        let mut clippy = process::cargo(&["clippy", "--quiet", "--locked", "--workspace"]);
        clippy.args(["--exclude=gateway-ebpf", "--all-targets"]).args(features).args(["--", "-Dwarnings"]);
        process::run(&mut clippy)?;
    }
    Ok(())
}

fn kernel_lint() -> Result<()> {
    match ebpf::lint()? {
        Lint::Clean => Ok(()),
        Lint::Unavailable => bail!("no clippy of the kernel programs' compiler (Debian: rust-web-clippy)"),
    }
}

fn rustdoc() -> Result<()> {
    let mut doc = process::cargo(&["doc", "--quiet", "--locked", "--no-deps", "--workspace"]);
    doc.args(["--exclude=gateway-ebpf", "--document-private-items"]);
    process::run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
}

fn test() -> Result<()> {
    xtask(&["test"])
}

fn fuzz_each() -> Result<()> {
    fuzz::run(&fuzz::Options { seconds: FUZZ_SECONDS, targets: Vec::new() })
}

fn release() -> Result<()> {
    process::run(&mut process::cargo(&["build", "--quiet", "--release", "--locked"]))
}

/// What a newcomer types first. It checks what it shows.
fn demo() -> Result<()> {
    process::run(process::command(workspace::target_dir().join("release/gateway")).arg("demo"))
}

fn bench() -> Result<()> {
    xtask(&["bench", "packet", "--quick"])?;
    xtask(&["bench", "request", "--quick"])?;
    // The other gateways come from far away, and each scene works like one of these.
    xtask(&[
        "bench",
        "llm",
        "--quick",
        "--peers",
        "gateway,floor",
        "--scenes",
        "splice,events-translate,alone-translate",
    ])
}

fn readme() -> Result<()> {
    documents::check_commands(&workspace::root().join("README.md"))
}

/// Another command of this program, as people start it.
fn xtask(args: &[&str]) -> Result<()> {
    let program = std::env::current_exe().context("the path of this program")?;
    process::run(process::command(program).args(args))
}
