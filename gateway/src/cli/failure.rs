//! How a command ends when it does not end well, and the exit code of each way.

use std::io;
use std::process::ExitCode;

use gateway_kernel::Error;

use super::output::clean;
use crate::control::ClientError;

/// How a command ends.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// A command that did not do what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The answer is no, and the output says so already: 1.
    No,
    /// The input is wrong: 1.
    Wrong(String),
    /// The command was typed wrong in a way that the parser cannot see: 2.
    Usage(String),
    /// The system refused; the message says what to do: 3.
    System(String),
    /// Whoever read the output went away, as `head` does: quietly 0.
    Closed,
}

impl Failure {
    /// Tells the reader, and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        if let Self::Wrong(message) | Self::Usage(message) | Self::System(message) = self {
            eprintln!("gateway: {}", message.lines().map(clean).collect::<Vec<_>>().join("\n"));
        }
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::No | Self::Wrong(_) => 1,
            Self::Usage(_) => 2,
            Self::System(_) => 3,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            // A list that is too long and an interface that does not exist are mistakes of the input.
            Error::Full { .. }
            | Error::RulesFull { .. }
            | Error::UnknownInterface { .. }
            | Error::Refused(_) => Self::Wrong(error.to_string()),
            _ => Self::System(error.to_string()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused(problem) if (400..500).contains(&problem.status) => {
                Self::Wrong(problem.detail.clone())
            }
            ClientError::TooLong { .. } => Self::Wrong(error.to_string()),
            _ => Self::System(advised(&error)),
        }
    }
}

/// Why an agent did not answer, and what to do about it.
pub(super) fn advised(error: &ClientError) -> String {
    match error {
        ClientError::Io { error: cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
            format!("{error}; run this as the user that the agent runs as, or as root")
        }
        _ => error.to_string(),
    }
}

/// Errors of writing output; whoever reads a file says which one it was.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::System(format!("cannot write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Problem;

    #[test]
    fn whoever_may_not_use_the_socket_is_told_who_may() {
        let refused =
            |kind: io::ErrorKind| advised(&ClientError::Io { path: "/run/s".into(), error: kind.into() });
        let denied = refused(io::ErrorKind::PermissionDenied);
        assert_eq!(
            denied,
            "cannot talk to the gateway on /run/s: permission denied; run this as the user that the agent runs as, or as root"
        );
        assert!(!refused(io::ErrorKind::TimedOut).contains("root"));
    }

    #[test]
    fn exit_codes() {
        let refused =
            |status: u16| ClientError::Refused(Problem { status, code: "x".into(), detail: "why".into() });
        let full = Error::Full { map: "lists_v4".into(), capacity: 1, used: 1, wanted: 1 };
        let table: Vec<(&str, Failure, u8)> = vec![
            ("no", Failure::No, 1),
            ("reader gone", io::Error::from(io::ErrorKind::BrokenPipe).into(), 0),
            ("disk full", io::Error::from(io::ErrorKind::StorageFull).into(), 3),
            ("list too long", full.into(), 1),
            ("not pinned", Error::NotPinned("/x".into()).into(), 3),
            ("privilege", Error::Privilege { what: "x".into() }.into(), 3),
            ("agent says wrong", refused(422).into(), 1),
            ("agent says broken", refused(500).into(), 3),
            ("no agent", ClientError::Absent("/x".into()).into(), 3),
            ("list too long to send", ClientError::TooLong { bytes: 1 }.into(), 1),
            ("too many labels", Error::RulesFull { capacity: 1 }.into(), 1),
        ];
        for (name, failure, code) in table {
            assert_eq!(failure.code(), code, "{name}");
        }
    }
}
