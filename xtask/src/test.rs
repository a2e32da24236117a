//! `cargo xtask test`: every test, the machine made ready for them first, and what was skipped said loudly after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, sdks, tools, workspace};

/// A test that cannot run here appends a line with its name and the reason to the file that this variable names.
const SKIPS: &str = "GATEWAY_TEST_SKIPS";
/// The kernel programs build for another target; their code is tested in gateway-common and end to end.
/// With what is off unless it is asked for, in one build: nothing of it changes what the rest does.
const PACKAGES: [&str; 4] = ["--workspace", "--exclude", "gateway-ebpf", "--features=gateway/http3"];
/// What the end-to-end tests run.
const PROGRAMS: [&str; 8] = ["ip", "nginx", "haproxy", "bpftool", "nft", "curl", "node", "python3"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out the end-to-end suite and the documentation's examples
    #[arg(long)]
    fast: bool,
    /// Run only the tests whose names contain one of these
    filter: Vec<String>,
}

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut skipped = Vec::new();
    if !options.fast {
        skipped.extend(prepare()?);
    }
    let skips = fresh_file("test-skips")?;
    let mut tally = match tools::NEXTEST.ensure() {
        Ok(nextest) => run_nextest(&nextest, options, &skips)?,
        Err(error) => {
            eprintln!("warning: {error:#}; `cargo test` runs the tests instead, more slowly");
            run_cargo_test(options, &skips)?
        }
    };
    if !options.fast {
        tally = tally + run_doctests(options, &skips)?;
    }
    skipped.extend(read_skips(&fs::read_to_string(&skips).context("reading what the tests skipped")?));
    report(tally, &skipped)
}

/// Makes the machine ready; returns what will be missing.
fn prepare() -> Result<Vec<String>> {
    let missing = tools::ensure_system_programs(&PROGRAMS);
    let mut skipped: Vec<String> = missing.iter().map(|program| program.advice()).collect();
    skipped.extend(sdks::ensure());
    if !workspace::is_root() {
        skipped.push(
            "not root: nothing that loads programs or makes namespaces can run (sudo -E cargo xtask test)"
                .into(),
        );
    } else if !fs::read_to_string("/proc/mounts")?.lines().any(|line| line.contains(" /sys/fs/bpf bpf ")) {
        // Not mounted on a new machine, and maps are pinned there.
        process::run(process::command("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
            .context("maps are pinned under /sys/fs/bpf, which cannot be mounted")?;
    }
    Ok(skipped)
}

fn run_nextest(nextest: &Path, options: &Options, skips: &Path) -> Result<Tally> {
    let results = workspace::target_dir().join("nextest/default/junit.xml");
    if results.exists() {
        fs::remove_file(&results)?; // An old file must not speak for a run that never started.
    }
    let mut command = process::command(nextest);
    command.args(["nextest", "run"]).args(packages(options)).args(&options.filter).env(SKIPS, skips);
    command.env("CARGO", workspace::cargo());
    let outcome = process::run(&mut command);
    let tally = match fs::read_to_string(&results) {
        Ok(text) => junit_tally(&text).context("the test runner's report is not understood"),
        Err(_) => outcome.as_ref().map(|()| Tally::default()).map_err(|error| anyhow::anyhow!("{error:#}")),
    }?;
    // A runner that fails without a failed test (a crash, nothing to run) has failed all the same.
    if outcome.is_err() && tally.failed == 0 {
        outcome?;
    }
    Ok(tally)
}

fn run_cargo_test(options: &Options, skips: &Path) -> Result<Tally> {
    let mut command = process::cargo(&["test", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    command.args(packages(options)).arg("--").args(&options.filter);
    tally_of(command.env(SKIPS, skips))
}

fn run_doctests(options: &Options, skips: &Path) -> Result<Tally> {
    let mut command = process::cargo(&["test", "--quiet", "--no-fail-fast", "--doc"]);
    command.args(packages(options)).arg("--").args(&options.filter);
    tally_of(command.env(SKIPS, skips))
}

fn packages(options: &Options) -> Vec<&'static str> {
    let mut args = PACKAGES.to_vec();
    if options.fast {
        args.extend(["--exclude", "gateway-tests"]);
    }
    args
}

fn tally_of(command: &mut Command) -> Result<Tally> {
    let (succeeded, text) = process::tee(command)?;
    let tally = libtest_tally(&text);
    if !succeeded && tally.failed == 0 {
        bail!("`{}` failed before its tests could run", process::shown(command));
    }
    Ok(tally)
}

fn report(tally: Tally, skipped: &[String]) -> Result<()> {
    let skipped: BTreeSet<&String> = skipped.iter().collect();
    if !skipped.is_empty() {
        println!("\n==== SKIPPED: this run did not test everything ====");
        for reason in &skipped {
            println!("  {reason}");
        }
        println!("===================================================\n");
    }
    let mut failed = tally.failed;
    if workspace::is_ci() && !skipped.is_empty() {
        println!("CI=true: each of the {} skips above counts as a failure", skipped.len());
        failed += skipped.len() as u64;
    }
    println!("{} passed, {failed} failed", tally.passed);
    if failed > 0 {
        bail!("{failed} failed");
    }
    Ok(())
}

fn fresh_file(name: &str) -> Result<PathBuf> {
    let file = workspace::target_dir().join(name);
    fs::create_dir_all(workspace::target_dir())?;
    fs::write(&file, "").with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

fn read_skips(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

/// Reads the sums that the report's root element carries.
fn junit_tally(xml: &str) -> Option<Tally> {
    let root = xml.split_once("<testsuites ")?.1.split_once('>')?.0;
    let number = |name: &str| -> Option<u64> {
        root.split_once(&format!("{name}=\""))?.1.split_once('"')?.0.parse().ok()
    };
    let failed = number("failures")? + number("errors")?;
    Some(Tally { passed: number("tests")?.checked_sub(failed)?, failed })
}

/// Adds up the lines `test result: ok. 3 passed; 0 failed; …`.
fn libtest_tally(text: &str) -> Tally {
    let count = |line: &str, word: &str| -> u64 {
        let before = line.split_once(word).map_or("", |(before, _)| before);
        before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    text.lines()
        .filter(|line| line.starts_with("test result: "))
        .map(|line| Tally { passed: count(line, " passed"), failed: count(line, " failed") })
        .fold(Tally::default(), std::ops::Add::add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_reports() {
        let cases = [
            (
                "all passed",
                r#"<?xml?><testsuites name="x" tests="12" failures="0" errors="0" uuid="u"><testsuite tests="3"/>"#,
                Some(Tally { passed: 12, failed: 0 }),
            ),
            (
                "failures and errors",
                r#"<testsuites name="x" tests="12" failures="2" errors="1">"#,
                Some(Tally { passed: 9, failed: 3 }),
            ),
            ("no numbers", r#"<testsuites name="x">"#, None),
            ("more failures than tests", r#"<testsuites tests="1" failures="2" errors="0">"#, None),
            ("not a report", "oops", None),
        ];
        for (name, xml, expected) in cases {
            assert_eq!(junit_tally(xml), expected, "{name}");
        }
    }

    #[test]
    fn libtest_results() {
        let cases = [
            ("none", "warning: x\n", Tally::default()),
            (
                "one",
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n",
                Tally { passed: 3, failed: 0 },
            ),
            (
                "several",
                "test result: ok. 3 passed; 0 failed;\nrunning\ntest result: FAILED. 10 passed; 2 failed;\n",
                Tally { passed: 13, failed: 2 },
            ),
            ("a test that prints the words", "said: test result: ok. 9 passed\n", Tally::default()),
        ];
        for (name, text, expected) in cases {
            assert_eq!(libtest_tally(text), expected, "{name}");
        }
    }

    #[test]
    fn skips_fail_only_the_gate() {
        let cases: [(&str, u64, bool); 2] = [("passed", 0, true), ("failed", 1, false)];
        for (name, failed, expected) in cases {
            assert_eq!(report(Tally { passed: 1, failed }, &[]).is_ok(), expected, "{name}");
        }
        assert_eq!(read_skips("\n a: no root \n\nb\n").collect::<Vec<_>>(), ["a: no root", "b"]);
    }
}
