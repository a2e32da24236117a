//! The admin socket's file: never reachable by others, never taken from a living agent, never left behind.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

/// Waiting connections; a command comes alone, so few are enough.
const BACKLOG: i32 = 64;

/// Why the admin socket cannot be had.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another agent answers there.
    #[error("another gateway answers on {}; stop it, or give this one its own --socket", .0.display())]
    Live(PathBuf),
    /// Something that is no socket stands there.
    #[error("{} is not a socket and was left alone; remove it, or choose another admin.socket", .0.display())]
    Foreign(PathBuf),
    /// The system refused.
    #[error("cannot {what} {}: {error}; check the directory's owner and mode, or choose another admin.socket", path.display())]
    System {
        /// What was tried, as an infinitive.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// A listening socket that removes its file when dropped, if the file is still its own.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    identity: (u64, u64),
    // Held as long as the socket: two agents that start at the same moment cannot both find it stale.
    _lock: Lock,
}

impl AdminSocket {
    /// Binds the socket with mode 0600, replacing that of a dead agent.
    ///
    /// # Errors
    /// A living agent or a foreign file at the path, or what the system refuses.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let at = |what, path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| SocketError::System { what, path, error }
        };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            let created = DirBuilder::new().recursive(true).mode(0o755).create(directory);
            created.map_err(at("create", directory))?;
        }
        let lock_path = beside(path, ".lock");
        let lock = Lock::take(&lock_path)
            .map_err(at("lock", &lock_path))?
            .ok_or_else(|| SocketError::Live(path.to_owned()))?;
        refuse_living(path)?;

        // Listening under a private name first, and renamed over the public one: nobody ever finds a
        // socket that does not answer or that is open to more than its owner.
        let private = beside(path, &format!(".{}", std::process::id()));
        let listener = listen(&private).map_err(|error| {
            let _ = std::fs::remove_file(&private);
            at("listen on", path)(error)
        })?;
        std::fs::rename(&private, path).map_err(|error| {
            let _ = std::fs::remove_file(&private);
            at("create", path)(error)
        })?;
        let found = std::fs::symlink_metadata(path).map_err(at("read", path))?;
        let identity = (found.dev(), found.ino());
        Ok((Self { path: path.to_owned(), identity, _lock: lock }, listener))
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A locked file that is removed when the lock is given up.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock, or `None` when somebody holds it. A holder removes the file when it leaves, so a
    /// lock on a file that is no longer at its path counts for nothing and is tried again.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            let held = file.metadata()?;
            match std::fs::symlink_metadata(path) {
                Ok(found) if (found.dev(), found.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Some(Self { path: path.to_owned(), _file: file }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The lock itself goes with the file's descriptor, after this.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn refuse_living(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(SocketError::Foreign(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => Err(SocketError::Live(path.to_owned())),
        _ => Ok(()),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The mode of a socket before it is bound is the mode that its file is born with.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    let _ = std::fs::remove_file(path);
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("a socket").mode() & 0o777
    }

    #[test]
    fn only_its_owner_can_reach_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deeper/still/admin.sock");
        let (socket, _listener) = AdminSocket::bind(&path).expect("bound");
        assert_eq!(mode(&path), 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        let left = std::fs::read_dir(path.parent().expect("a parent")).expect("readable").count();
        assert_eq!(left, 0, "nothing is left behind");
    }

    #[test]
    fn the_mode_is_right_from_birth() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let _listener = listen(&path).expect("listening");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_living_agent_keeps_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let (_socket, _listener) = AdminSocket::bind(&path).expect("bound");
        assert!(matches!(AdminSocket::bind(&path), Err(SocketError::Live(_))));
        assert!(UnixStream::connect(&path).is_ok(), "the first one still answers");
    }

    #[test]
    fn a_dead_one_is_replaced_and_a_foreign_file_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        drop(UnixListener::bind(&path).expect("bound"));
        let (socket, _listener) = AdminSocket::bind(&path).expect("replaced");
        drop(socket);
        std::fs::write(&path, "precious").expect("written");
        assert!(matches!(AdminSocket::bind(&path), Err(SocketError::Foreign(_))));
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "precious");
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x".repeat(150));
        assert!(matches!(AdminSocket::bind(&path), Err(SocketError::System { .. })));
    }
}
