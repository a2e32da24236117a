//! What judging a packet costs, beside its peers: by list size beside an LPM trie (BPF_PROG_TEST_RUN, random
//! sources), beside xdp-filter, through a wire beside nftables, and what importing a long list takes
//! and one entry beside it.
//! `cargo xtask bench packet` runs it and says what the machine was.
#![allow(missing_docs)]
// bpf(2), wait4(2), ioctl(2) and namespaces of a thread; each says why it is sound.
#![allow(unsafe_code)]

mod bpf;
mod edit;
mod filter;
mod import;
mod lists;
mod network;
mod prefixes;
mod program;
// Without a harness its tests are not run here, and what they import is not used.
#[allow(unused_imports)]
#[path = "../../../../xtask/src/bench/table.rs"]
mod table;
mod wire;

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// What can go wrong here is told to whoever runs the benchmark, and to nobody else.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Scale {
    quick: bool,
    rounds: usize,
    /// Packets of one test run: enough that the kernel's whole nanoseconds are precise.
    repeat: u32,
}

impl Scale {
    const FULL: Self = Self { quick: false, rounds: 9, repeat: 300_000 };
    const QUICK: Self = Self { quick: true, rounds: 3, repeat: 100_000 };
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |option: &str| arguments.iter().skip_while(|argument| *argument != option).nth(1);
    let scale =
        if arguments.iter().any(|argument| argument == "--quick") { Scale::QUICK } else { Scale::FULL };
    let gateway = after("--gateway").map(PathBuf::from);
    let only = after("--only");
    let wanted = |name: &str| only.is_none_or(|only| only.split(',').any(|one| one == name));
    // The import comes first: the kernel counts the memory of a child from what its parent had when it
    // started it, and this process will soon have much.
    let import = if wanted("import") { import::report(&scale, gateway.as_deref())? } else { String::new() };
    for (name, report) in PARTS {
        if wanted(name) {
            println!("{}", report(&scale)?);
        }
    }
    print!("{import}");
    Ok(())
}

/// One part of the report, measured.
type Part = fn(&Scale) -> Outcome<String>;

/// What `--only` chooses from, besides `import`.
const PARTS: [(&str, Part); 4] =
    [("lists", lists::report), ("edit", edit::report), ("filter", filter::report), ("wire", wire::report)];

/// Says what was tried when it failed.
fn context<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> Outcome<T> {
    result.map_err(|error| format!("cannot {what}: {error}").into())
}

/// Runs a program of the system over some input, and returns what it wrote.
fn command(command: &mut Command, input: &str) -> Outcome<String> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = context(command.spawn(), &format!("run {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why; that it did not read on is no news.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = context(child.wait_with_output(), &format!("wait for {shown}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{shown} failed ({}): {}", output.status, said.trim_end()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
