//! Child processes: run one, read one, keep one in the background without ever losing it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::workspace;

/// How long a program in the background has to end when it is asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A command that runs in the root of the checkout, without input.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root()).stdin(Stdio::null());
    command
}

/// The cargo that started us, with these arguments.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = command(workspace::cargo());
    command.args(args);
    command
}

/// Runs to the end with our output; fails with the command line if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("`{}` could not be started", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs to the end and returns what it wrote: standard output, then standard error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("`{}` could not be started", shown(command)))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("`{}` failed ({}):\n{}", shown(command), output.status, text.trim_end());
    }
    Ok(text)
}

/// Runs to the end, shows its standard output as it comes, and returns it with whether the command succeeded.
pub(crate) fn tee(command: &mut Command) -> Result<(bool, String)> {
    let line = shown(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{line}` could not be started"))?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        for read in BufReader::new(stdout).lines() {
            let read = read.with_context(|| format!("reading what `{line}` writes"))?;
            println!("{read}");
            text.push_str(&read);
            text.push('\n');
        }
    }
    Ok((child.wait()?.success(), text))
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        let quote = if arg.is_empty() || arg.contains([' ', '"', '$', '*']) { "'" } else { "" };
        let _ = write!(line, " {quote}{arg}{quote}");
    }
    line
}

/// The first executable of this name on the path, or where system programs are that users have no path to.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// A program in the background with all its children: one process group, killed when this value goes.
pub(crate) struct Group {
    leader: Child,
    name: String,
}

impl Group {
    /// Starts the program pinned to a CPU.
    ///
    /// `setpriv` asks the kernel to end it should this process die without cleaning up, Ctrl-C included: in its own
    /// process group it gets no signal from the terminal.
    pub(crate) fn start(name: &str, cpu: usize, program: &Command) -> Result<Self> {
        let mut command = command("setpriv");
        command.args(["--pdeathsig", "TERM", "taskset", "-c", &cpu.to_string()]);
        command.arg(program.get_program()).args(program.get_args()).process_group(0);
        // What this program prints is tables; what the others have to say of mistakes, they say on stderr.
        command.stdout(Stdio::null());
        let leader =
            command.spawn().with_context(|| format!("{name}: `{}` could not be started", shown(&command)))?;
        Ok(Self { leader, name: name.to_owned() })
    }

    /// Fails if the program has ended.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        match self.leader.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended early ({status}); its own words are above", self.name),
        }
    }

    /// The processes of the group.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").context("reading /proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process may end between the two reads; then it is not of interest.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if Stat::parse(&stat).is_some_and(|stat| stat.group == self.leader.id()) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// Asks the first process to read its configuration anew.
    pub(crate) fn hang_up(&self) -> Result<()> {
        let leader = Pid::from_child(&self.leader);
        rustix::process::kill_process(leader, Signal::HUP).context("SIGHUP")
    }

    /// Processor time of all processes so far, in seconds, that of children already gone included.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let ticks: u64 = self
            .pids()?
            .into_iter()
            .filter_map(|pid| Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
            .map(|stat| stat.ticks)
            .sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Resident memory of all processes, in bytes; shared pages count once a process.
    pub(crate) fn rss_bytes(&self) -> Result<u64> {
        let pages: u64 = self
            .pids()?
            .into_iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/statm")).ok())
            .filter_map(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok())
            .sum();
        Ok(pages * rustix::param::page_size() as u64)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = i32::try_from(self.leader.id()).ok().and_then(Pid::from_raw);
        // The only way in which this fails is that nobody is in the group any more.
        let signal = |signal| group.map(|group| kill_process_group(group, signal));
        // Politely first: a master that is asked reaps its workers, which nobody else may do.
        let _ = signal(Signal::TERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.leader.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = signal(Signal::KILL);
        let _ = self.leader.wait();
    }
}

/// What `/proc/PID/stat` says about group and processor time.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    group: u32,
    ticks: u64,
}

impl Stat {
    /// Reads the fields after the name, which is in parentheses and may itself hold spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            group: u32::try_from(number(2)?).ok()?,
            // User, system, and the same of children that were waited for.
            ticks: number(11)? + number(12)? + number(13)? + number(14)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let tail = "4194560 100 200 0 0 7 5 2 1 20 0 1 0 100";
        let cases = [
            ("plain", format!("10 (nginx) S 1 10 10 0 -1 {tail}"), Some(Stat { group: 10, ticks: 15 })),
            ("odd name", format!("11 (a) (b c) R 1 9 9 0 -1 {tail}"), Some(Stat { group: 9, ticks: 15 })),
            ("cut short", "12 (x) S 1 12".to_owned(), None),
            ("empty", String::new(), None),
        ];
        for (name, line, expected) in cases {
            assert_eq!(Stat::parse(&line), expected, "{name}");
        }
    }

    #[test]
    fn command_lines_are_shown_as_typed() {
        let cases: [(&str, &[&str], &str); 3] = [
            ("bare", &[], "prog"),
            ("plain", &["a", "-b"], "prog a -b"),
            ("quoted", &["a b", ""], "prog 'a b' ''"),
        ];
        for (name, args, expected) in cases {
            assert_eq!(shown(Command::new("prog").args(args)), expected, "{name}");
        }
    }
}
