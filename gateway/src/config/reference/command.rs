//! What a program prints, in place of a secret: it asks a vault or a password manager, once when the configuration is read.
//!
//! There is no shell: words are what stands between blanks, so nothing in them can be a second command.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gateway_kernel::feed::shown;

use super::{MAX_FILE_BYTES, secret};

/// How long it may take: nothing runs before, and a reload waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked whether a program that has closed its output has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Runs a program in the configuration's directory. No message repeats what it printed.
pub(super) fn run(command: &str, base_dir: &Path) -> Result<String, String> {
    within(command, base_dir, TIMEOUT)
}

fn within(command: &str, base_dir: &Path, timeout: Duration) -> Result<String, String> {
    let mut words = command.split_whitespace();
    let Some(program) = words.next() else {
        return Err("`command:` names no program; write ${command: PROGRAM ARGUMENTS}".to_owned());
    };
    let mut running = Command::new(program);
    running.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if !base_dir.as_os_str().is_empty() {
        running.current_dir(base_dir);
    }
    let failed = |why: String| format!("the command {} {why}", shown(program));
    let child = running.spawn().map_err(|error| failed(format!("cannot be run: {error}")))?;
    output(child, timeout)
        .map_err(failed)
        .and_then(|bytes| secret(bytes).map_err(|why| failed(format!("prints what cannot be used: {why}"))))
}

/// What it prints. It is killed when it takes too long or prints too much.
fn output(mut child: Child, timeout: Duration) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + timeout;
    let (sender, read) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // A thread of its own, as a pipe has no deadline. It ends with the pipe.
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let result = stdout.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
            let _ = sender.send(result.map(|_| bytes));
        });
    }
    let mut ended = read.recv_timeout(timeout).map_err(|_| late(timeout)).and_then(|read| {
        let bytes = read.map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("prints more than {MAX_FILE_BYTES} bytes"));
        }
        Ok(bytes)
    });
    while ended.is_ok() {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return ended,
            Ok(Some(status)) => return Err(format!("failed: {status}")),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            Ok(None) => ended = Err(late(timeout)),
            Err(error) => ended = Err(format!("cannot be waited for: {error}")),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    ended
}

fn late(timeout: Duration) -> String {
    format!("did not end within {timeout:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_the_secret() {
        for (command, expected) in [
            (" echo  a   b", Ok("a b")),
            ("printf x\\n\\n", Ok("x\n")),
            // Nothing of a shell's is one.
            ("echo $HOME;false|`x`", Ok("$HOME;false|`x`")),
            ("true", Ok("")),
            ("", Err("`command:` names no program; write ${command: PROGRAM ARGUMENTS}")),
            ("false", Err("the command false failed: exit status: 1")),
            (
                "/nowhere/x y",
                Err("the command /nowhere/x cannot be run: No such file or directory (os error 2)"),
            ),
            ("sleep 5", Err("the command sleep did not end within 300ms")),
            ("yes", Err("the command yes prints more than 65536 bytes")),
            ("printf \\377", Err("the command printf prints what cannot be used: it is not UTF-8")),
        ] {
            let said = within(command, Path::new(""), Duration::from_millis(300));
            assert_eq!(said.as_deref().map_err(String::as_str), expected, "{command}");
        }
    }

    #[test]
    fn it_runs_where_the_configuration_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "sk\n").unwrap();
        assert_eq!(run("cat key", dir.path()).as_deref(), Ok("sk"));
    }
}
