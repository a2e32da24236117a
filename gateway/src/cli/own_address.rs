//! The address of whoever types: a list that denies it would end the session that could take it back.

use std::fs;
use std::net::IpAddr;

/// Processes above this one that are looked at: a shell, sudo, tmux, sshd.
const MAX_ANCESTORS: usize = 32;
/// What sshd tells its sessions: the client's address comes first (sshd(8), ENVIRONMENT).
const VARIABLES: [&str; 2] = ["SSH_CONNECTION", "SSH_CLIENT"];

/// Where the session comes from, if it came over SSH. sudo hides the variable, so the processes above are asked,
/// too.
pub(super) fn of_the_session() -> Option<IpAddr> {
    let own = VARIABLES.iter().find_map(|name| std::env::var(name).ok());
    if let Some(address) = own.as_deref().and_then(first_address) {
        return Some(address);
    }
    let mut process = std::process::id();
    for _ in 0..MAX_ANCESTORS {
        process = parent(process)?;
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        if let Some(address) = in_environment(&environment) {
            return Some(address);
        }
    }
    None
}

fn in_environment(environment: &[u8]) -> Option<IpAddr> {
    environment.split(|byte| *byte == 0).find_map(|pair| {
        let text = std::str::from_utf8(pair).ok()?;
        let (name, value) = text.split_once('=')?;
        VARIABLES.contains(&name).then(|| first_address(value)).flatten()
    })
}

fn first_address(value: &str) -> Option<IpAddr> {
    // A link-local address has its interface behind it.
    value
        .split_ascii_whitespace()
        .next()?
        .split('%')
        .next()?
        .parse::<IpAddr>()
        .ok()
        .map(|it| it.to_canonical())
}

fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|parent| *parent > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_session_comes_from() {
        let table: &[(&[u8], Option<&str>)] = &[
            (b"", None),
            (b"PATH=/bin\0SSH_CONNECTION=192.0.2.7 50000 198.18.0.1 22\0", Some("192.0.2.7")),
            (b"SSH_CLIENT=2001:db8::7 50000 22\0", Some("2001:db8::7")),
            (b"SSH_CLIENT=fe80::7%eth0 50000 22", Some("fe80::7")),
            (b"SSH_CLIENT=::ffff:192.0.2.7 50000 22", Some("192.0.2.7")),
            (b"SSH_CLIENT=nonsense\0\xff=\xff", None),
            (b"XSSH_CLIENT=192.0.2.7 1 2", None),
        ];
        for (environment, expected) in table {
            let found = in_environment(environment).map(|address| address.to_string());
            assert_eq!(found.as_deref(), *expected, "{}", String::from_utf8_lossy(environment));
        }
    }

    #[test]
    fn this_process_has_a_parent() {
        assert!(parent(std::process::id()).is_some());
        assert_eq!(parent(u32::MAX), None);
    }
}
