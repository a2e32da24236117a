//! The pin directory: `DIR/v1/` with a file a map and a link, and two locks.
//!
//! The lock on `DIR/v1` itself is held by the agent for its life; the lock on `DIR/v1/maps` is every
//! writer's, for one change. Both are flock(2) on the directory, because a BPF file system holds no
//! ordinary files, and both vanish with the process that held them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::maps::MapError;
use gateway_common::abi::SCHEMA_VERSION;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Error;

/// Where the kernel's file system for BPF objects usually is.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;
/// How long a writer waits for its turn: longer than writing a full list takes.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// A directory on a BPF file system that belongs to one gateway.
#[derive(Debug, Clone)]
pub(crate) struct PinDir {
    base: PathBuf,
}

impl PinDir {
    pub(crate) fn new(base: &Path) -> Self {
        Self { base: base.to_owned() }
    }

    /// The directory as the user names it.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    fn version(&self) -> PathBuf {
        self.base.join(format!("v{SCHEMA_VERSION}"))
    }

    /// Where the maps are pinned, each under its name.
    pub(crate) fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    /// Where an interface's link is pinned. By row and not by name: a BPF file system takes no dots,
    /// and the names of VLAN interfaces have them.
    pub(crate) fn link(&self, slot: u32) -> PathBuf {
        self.version().join(format!("link_{slot}"))
    }

    /// Where the link is pinned of the program that remembers what an interface sends.
    pub(crate) fn egress(&self, slot: u32) -> PathBuf {
        self.version().join(format!("egress_{slot}"))
    }

    /// Whether a gateway has pinned anything here.
    pub(crate) fn exists(&self) -> bool {
        is_directory(&self.version())
    }

    /// Makes the directory, mounting the BPF file system at its usual place if that is all that lacks.
    pub(crate) fn create(&self) -> Result<(), Error> {
        if let Some(other) = self.other_schema() {
            return Err(self.unusable(format!(
                "{other} was left by another version of this program; take it away with that version's `gateway detach`, or by `rm -r {}`, which ends its protection",
                self.base.join(&other).display()
            )));
        }
        if !on_bpffs(&self.base) && self.base.starts_with(BPFFS) {
            mount_bpffs().map_err(|error| match error {
                Errno::PERM | Errno::ACCESS => Error::Privilege { what: format!("mounting {BPFFS}") },
                _ => self.unusable(format!(
                    "mounting a BPF file system there failed: {error}; try `mount -t bpf bpf {BPFFS}`"
                )),
            })?;
        }
        if !on_bpffs(&self.base) {
            return Err(
                self.unusable(format!("it is not on a BPF file system; choose a directory below {BPFFS}"))
            );
        }
        if let Some(above) = self.base.parent() {
            fs::create_dir_all(above)
                .map_err(|error| self.unusable(format!("cannot make {}: {error}", above.display())))?;
        }
        for directory in [&self.base, &self.version(), &self.maps()] {
            self.make(directory)?;
        }
        Ok(())
    }

    /// Makes one directory that only this user may enter. One that is there already must be this user's: a BPF
    /// file system may be writable by all, and somebody else's directory (or link) could lead anywhere.
    fn make(&self, directory: &Path) -> Result<(), Error> {
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(self.unusable(format!("cannot make {}: {error}", directory.display())));
            }
            _ => {}
        }
        let us = rustix::process::geteuid().as_raw();
        match fs::symlink_metadata(directory) {
            Ok(found) if found.is_dir() && found.uid() == us => Ok(()),
            Ok(found) => Err(self.unusable(format!(
                "{} is not a directory of this user (it is user {}'s); remove it or choose another",
                directory.display(),
                found.uid()
            ))),
            Err(error) => Err(self.unusable(format!("cannot look at {}: {error}", directory.display()))),
        }
    }

    /// A directory of another schema version beside ours.
    fn other_schema(&self) -> Option<String> {
        let ours = format!("v{SCHEMA_VERSION}");
        let entries = fs::read_dir(&self.base).ok()?;
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).find(|name| {
            *name != ours
                && name.strip_prefix('v').is_some_and(|digits| {
                    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
                })
        })
    }

    /// The agent's lock, held until dropped.
    pub(crate) fn lock_agent(&self) -> Result<OwnedFd, Error> {
        match flock(&self.version()) {
            Ok(held) => Ok(held),
            Err(Errno::WOULDBLOCK) => Err(Error::Locked(self.base.clone())),
            Err(error) => Err(self.unusable(format!("locking it failed: {error}"))),
        }
    }

    /// A writer's turn.
    pub(crate) fn lock_lists(&self) -> Result<OwnedFd, Error> {
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            if let Some(held) = self.try_lock_lists()? {
                return Ok(held);
            }
            if Instant::now() > until {
                return Err(self.unusable(format!(
                    "another command has been writing the lists for {} s; find it with `fuser {}`",
                    LOCK_PATIENCE.as_secs(),
                    self.maps().display()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A writer's turn, if nobody else has it.
    pub(crate) fn try_lock_lists(&self) -> Result<Option<OwnedFd>, Error> {
        match flock(&self.maps()) {
            Ok(held) => Ok(Some(held)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(Errno::NOENT) => Err(Error::NotPinned(self.base.clone())),
            Err(error) => Err(self.unusable(format!("locking it failed: {error}"))),
        }
    }

    /// Removes everything: links first, so that no program runs on maps that are going away.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let failed = |error: io::Error| self.unusable(format!("removing it failed: {error}"));
        let version = self.version();
        let entries = fs::read_dir(&version).map_err(failed)?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut links = paths.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        links.retain(|path| path.is_file());
        // Backwards by name, `link_0` before `egress_0`: where the default is to drop, what tells replies apart
        // goes last.
        links.sort_unstable_by(|a, b| b.cmp(a));
        for link in links {
            fs::remove_file(&link).map_err(failed)?;
        }
        fs::remove_dir_all(&version).map_err(failed)?;
        // Others may use the directory above.
        let _ = fs::remove_dir(&self.base);
        Ok(())
    }

    fn unusable(&self, why: String) -> Error {
        Error::PinDir { path: self.base.clone(), why }
    }
}

/// Locks a directory, or `WOULDBLOCK`. A lock on a directory that was removed and made anew in the meantime
/// would keep nobody out, so the directory must still be the one that was locked.
fn flock(directory: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::open(directory, flags, Mode::empty())?;
    rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive)?;
    let (locked, there) = (rustix::fs::fstat(&held)?, rustix::fs::stat(directory)?);
    if (locked.st_dev, locked.st_ino) != (there.st_dev, there.st_ino) {
        return Err(Errno::WOULDBLOCK);
    }
    Ok(held)
}

/// Whether this is a directory, and not a link to one.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Whether the directory, or the nearest one above it that exists, is on a BPF file system.
fn on_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find_map(|ancestor| rustix::fs::statfs(ancestor).ok())
        .is_some_and(|stat| stat.f_type as u64 == BPFFS_MAGIC)
}

fn mount_bpffs() -> Result<(), Errno> {
    use rustix::mount::{MountFlags, mount};
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", BPFFS, "bpf", flags, Some(c"mode=0700"))
}

/// What it means that a pinned map could not be opened.
pub(crate) fn opening(maps: &Path, name: &str, error: &MapError) -> Error {
    let io_error = match error {
        MapError::SyscallError(error) => Some(&error.io_error),
        _ => None,
    };
    match io_error.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => Error::NotPinned(maps.ancestors().nth(2).unwrap_or(maps).to_owned()),
        Some(io::ErrorKind::PermissionDenied) => {
            Error::Privilege { what: format!("opening {}", maps.join(name).display()) }
        }
        _ => Error::Kernel { what: format!("open the pinned map {name}"), why: crate::error::chain(error) },
    }
}
