//! `deny import` of a long file into empty maps, until the command returns: seconds, and the command's memory.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use gateway_kernel::sandbox::{Program as Ours, Sandbox};

use crate::prefixes::shuffled_v4;
use crate::table::{Spread, markdown};
use crate::{Outcome, Scale, context};

const RUNS: usize = 3;
const PREFIXES: usize = 1_000_000;
/// Shows that all works, and measures nothing.
const PREFIXES_QUICK: usize = 20_000;

/// One run of the command.
struct Import {
    seconds: f64,
    cpu_s: f64,
    peak_bytes: f64,
}

pub(crate) fn report(scale: &Scale, gateway: Option<&Path>) -> Outcome<String> {
    let Some(gateway) = gateway else {
        return Ok("`deny import` was NOT measured: name the program with --gateway PATH.\n".to_owned());
    };
    let (runs, count) = if scale.quick { (1, PREFIXES_QUICK) } else { (RUNS, PREFIXES) };
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("drop.txt");
    let distinct = write(&file, count)?;
    let mut imports = Vec::new();
    for run in 1..=runs {
        eprintln!("deny import, {run} of {runs}");
        imports.push(import(gateway, &file, distinct)?);
    }
    let column = |figure: fn(&Import) -> f64, digits| {
        let figures: Vec<f64> = imports.iter().map(figure).collect();
        Spread::of(&figures).map_or_else(|| "–".to_owned(), |spread| spread.show(digits))
    };
    let row = vec![
        format!("{count} prefixes"),
        column(|import| import.seconds, 2),
        column(|import| import.cpu_s, 2),
        column(|import| import.peak_bytes / f64::from(1 << 20), 0),
    ];
    Ok(format!(
        "{}\nMedians (least–most) of {runs} runs, each into maps that were just made, no agent running; IPv4, half /24 and \
         half /32, as a file of one prefix a line.\n",
        markdown(
            &["`deny import`", "until it returns, s", "processor time, s", "the command's peak, MiB"],
            &[row]
        )
    ))
}

/// Writes the list, each prefix once, in no order, and says how long it is. Little memory is used, for the same
/// reason as in `run`: what this process once had would be told as the command's.
fn write(file: &Path, count: usize) -> Outcome<u64> {
    let mut text = BufWriter::new(context(File::create(file), &format!("make {}", file.display()))?);
    let prefixes = shuffled_v4(count);
    for prefix in &prefixes {
        writeln!(text, "{prefix}")?;
    }
    text.flush()?;
    Ok(prefixes.len() as u64)
}

fn import(gateway: &Path, file: &Path, expected: u64) -> Outcome<Import> {
    let sandbox = Sandbox::load(Ours::Gateway)?;
    let mut command = Command::new(gateway);
    command.args(["deny", "import"]).arg(file).args(["--reason", "bench"]);
    command.arg("--pin-dir").arg(sandbox.pin_dir());
    // Nobody answers there, so that no agent of this machine is asked.
    command.arg("--socket").arg(file.with_extension("sock"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let child = context(command.spawn(), &format!("run {}", gateway.display()))?;
    let (status, usage) = context(wait(child.id()), "wait for the import")?;
    let seconds = began.elapsed().as_secs_f64();
    if status != 0 {
        return Err(format!("the import failed (wait status {status})").into());
    }
    let entries: u64 = sandbox.rules().usage()?.iter().map(|usage| usage.entries).sum();
    if entries != expected {
        return Err(format!("{entries} entries are there after importing {expected}").into());
    }
    let time = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Import {
        seconds,
        cpu_s: time(usage.ru_utime) + time(usage.ru_stime),
        // The kernel tells kibibytes.
        peak_bytes: usage.ru_maxrss as f64 * 1024.0,
    })
}

/// Waits for a child and says what it used, which the standard library does not.
fn wait(child: u32) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: a struct of integers, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to values that live through the call.
        let answer = unsafe { libc::wait4(child as libc::pid_t, &raw mut status, 0, &raw mut usage) };
        if answer > 0 {
            return Ok((status, usage));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
