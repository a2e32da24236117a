//! Files that people and programs replace while the agent runs: looked at in short intervals, read when they have
//! come to rest.
//!
//! Looking costs one `stat`. inotify was weighed and left out: it loses a file that is renamed over, says nothing
//! of network file systems, and would still need a rest after the last write.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Follows one file. It knows what the last look saw and what was read last, and decides what a look means.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    seen: Option<Stamp>,
    read: Option<Stamp>,
}

/// What tells one state of a file from another. A file that was renamed over it has another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Watch {
    /// Takes in a look, and says whether the file is to be read now: when two looks agree on a state that was
    /// not read yet. `at_once` reads whatever is there.
    pub(crate) fn looks(&mut self, now: Stamp, at_once: bool) -> bool {
        let rests = self.seen.replace(now) == Some(now);
        at_once || (rests && self.read != Some(now))
    }

    /// The file was read whole in this state.
    pub(crate) fn has_read(&mut self, stamp: Stamp) {
        self.read = Some(stamp);
    }

    /// The file could not be looked at or read. When it can be again it is read, even unchanged: the failure
    /// has been reported, and its end must be too.
    pub(crate) fn failed(&mut self) {
        *self = Self::default();
    }
}

/// Looks at a file.
pub(crate) fn look(path: &Path, limit: u64) -> Result<Stamp, String> {
    let metadata = std::fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    stamp(path, &metadata, limit)
}

/// Reads a file whole; `None` when it changes meanwhile.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<(Stamp, Vec<u8>)>, String> {
    let failed = |error: io::Error| cannot_read(path, &error);
    let mut file = open(path).map_err(failed)?;
    let before = stamp(path, &file.metadata().map_err(failed)?, limit)?;
    let mut bytes = Vec::new();
    // One byte more than it has, to notice one that grows.
    file.by_ref().take(before.size.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    let after = stamp(path, &file.metadata().map_err(failed)?, limit)?;
    let whole = before == after && bytes.len() as u64 == before.size;
    Ok(whole.then_some((before, bytes)))
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Not blocking: opening a pipe would otherwise wait for its writer for ever.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn stamp(path: &Path, metadata: &std::fs::Metadata, limit: u64) -> Result<Stamp, String> {
    if !metadata.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    if metadata.size() > limit {
        // Without its size: a file that grows would be a new failure at every look.
        return Err(format!("{} is larger than {limit} bytes", path.display()));
    }
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{} is not there", path.display()),
        _ => format!("{} cannot be read: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_rests() {
        // A letter a look: the state it sees. `!` is a failed look, `*` a look that was asked for.
        let cases: &[(&str, &str, &str)] = &[
            ("read once, at the second look", "aaaa", ".r.."),
            ("read again after a change has come to rest", "aabbb", ".r.r."),
            ("not read while it changes", "abcdd", "....r"),
            ("back to what was read is nothing new", "aabaa", ".r..."),
            ("gone and back is read again", "aa!aa", ".r!.r"),
            ("read at once when asked", "a*", ".r"),
            ("read again when asked, then left alone", "aa*a", ".rr."),
        ];
        for (name, looks, expected) in cases {
            let mut watch = Watch::default();
            let mut state = 0;
            let happened: String = looks
                .chars()
                .map(|look| {
                    if look == '!' {
                        watch.failed();
                        return '!';
                    }
                    if look != '*' {
                        state = u64::from(look);
                    }
                    let now = Stamp { device: 1, inode: state, size: 1, modified: (0, 0) };
                    if !watch.looks(now, look == '*') {
                        return '.';
                    }
                    watch.has_read(now);
                    'r'
                })
                .collect();
            assert_eq!(happened, *expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("fits"), [b'x'; 8]).unwrap();
        std::fs::write(at("large"), [b'x'; 9]).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        let pipe = std::ffi::CString::new(at("pipe").to_str().unwrap()).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            pipe.as_c_str(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let cases = [
            ("fits", None),
            ("large", Some("is larger than 8 bytes")),
            ("directory", Some("is not a regular file")),
            ("pipe", Some("is not a regular file")),
            ("absent", Some("is not there")),
        ];
        for (name, expected) in cases {
            let path = at(name);
            for outcome in [look(&path, 8).err(), read(&path, 8).err()] {
                match (outcome, expected) {
                    (None, None) => {}
                    (Some(why), Some(end)) => assert!(why.ends_with(end), "{name}: {why}"),
                    (got, _) => panic!("{name}: {got:?}"),
                }
            }
        }
        assert_eq!(read(&at("fits"), 8).unwrap().unwrap().1, [b'x'; 8]);
        assert!(read_bounded(&at("fits"), 8).is_ok() && read_bounded(&at("large"), 8).is_err());
    }
}
