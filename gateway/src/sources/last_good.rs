//! What was fetched last and accepted, kept on disk for a start while the server is down.
//!
//! A copy is two files: the body, and a head in JSON with the body's hash. Both are written beside, and the body
//! is renamed before the head; between the two renames the new head is found under its temporary name. So after
//! a crash at any point there is one whole copy, the former or the new one. One file with both would be simpler;
//! two let an operator look at a list with the tools for lists.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::files::read_bounded;

/// Bytes of a body, of a fetched list as of one in a file: some ten million lines.
pub(super) const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes of a head; its longest parts are two fields of a response whose whole head is bounded.
const MAX_HEAD_BYTES: u64 = 256 * 1024;

/// How long the copy of a list that is not configured any more stays: long enough to take a change back.
const KEPT_UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Hexadecimal digits of the hash that names a copy.
const NAME_DIGITS: usize = 32;

/// The body that was fetched from `url` last and accepted, if there is one and it is whole. `dir` is the
/// directory that [`Sources`](super::Sources) was started with. A damaged copy is said in the log.
#[must_use]
pub fn last_good(dir: &Path, url: &str) -> Option<Vec<u8>> {
    load(dir, &Key::of(url), Slot::LastGood).map(|copy| copy.bytes)
}

/// Which list a copy is of: a hash of its origin, which does not show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn of(origin: &str) -> Self {
        let mut name = digest(origin.as_bytes());
        name.truncate(NAME_DIGITS);
        Self(name)
    }
}

/// Which of a list's two copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// What was accepted.
    LastGood,
    /// What waits for a confirmation.
    Held,
}

/// The head of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Where the body is from, without credentials.
    pub(super) url: String,
    /// As the server sent it.
    pub(super) etag: Option<String>,
    /// As the server sent it.
    pub(super) last_modified: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub(super) fetched_at_ms: u64,
    /// Of the body, in hexadecimal.
    pub(super) sha256: String,
}

/// A whole copy.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) head: Head,
    pub(super) bytes: Vec<u8>,
}

/// A copy could not be written.
#[derive(Debug, Error)]
#[error("{} cannot be written: {error}", path.display())]
pub(super) struct StoreError {
    path: PathBuf,
    error: io::Error,
}

/// The directory of the copies.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// Two lists may have one origin; each writes a temporary file of its own.
    serial: AtomicU64,
    /// The renames of two writers must not mix.
    commits: Mutex<()>,
}

/// A body that is on disk under a temporary name, which goes when it is not committed.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    key: Key,
    head: Head,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a commit there is nothing under this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Store {
    /// Opens the directory, and clears up what a crash left there and what is long out of use.
    pub(super) fn open(dir: PathBuf, used: &[Key]) -> Self {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        if let Err(error) = made.and_then(|()| clear_up(&dir, used, SystemTime::now())) {
            tracing::warn!("fetched lists cannot be kept in {}: {error}", dir.display());
        }
        Self { dir, serial: AtomicU64::new(0), commits: Mutex::new(()) }
    }

    pub(super) fn load(&self, key: &Key, slot: Slot) -> Option<Copy> {
        load(&self.dir, key, slot)
    }

    /// Writes a body down before its fate is known: then a commit is two renames, and the bytes can be given away.
    pub(super) fn stage(&self, key: &Key, head: Head, bytes: &[u8]) -> Result<Staged, StoreError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{}.{serial}.tmp", key.0));
        let staged = Staged { path, key: key.clone(), head };
        write_synced(&staged.path, bytes)?;
        Ok(staged)
    }

    /// Makes a staged body the copy in a slot.
    pub(super) fn commit(&self, staged: &Staged, slot: Slot) -> Result<(), StoreError> {
        let _one_at_a_time = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let names = Names::of(&self.dir, &staged.key, slot);
        let head = serde_json::to_vec(&staged.head)
            .map_err(|error| StoreError { path: names.head.clone(), error: error.into() })?;
        write_synced(&names.new_head, &head)?;
        self.rename(&staged.path, &names.body)?;
        self.rename(&names.new_head, &names.head)
    }

    /// Removes the copy in a slot, if there is one.
    pub(super) fn forget(&self, key: &Key, slot: Slot) {
        let _one_at_a_time = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let names = Names::of(&self.dir, key, slot);
        // The body first: a body without a head would be reported as damaged.
        for path in [&names.body, &names.head, &names.new_head] {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("{} cannot be removed: {error}", path.display());
            }
        }
    }

    /// A rename that is on disk before the next step: file systems may write two of them in any order.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let renamed = std::fs::rename(from, to).and_then(|()| File::open(&self.dir)?.sync_all());
        renamed.map_err(|error| StoreError { path: to.to_owned(), error })
    }
}

/// The files of one copy.
struct Names {
    body: PathBuf,
    head: PathBuf,
    /// The head between its writing and its rename.
    new_head: PathBuf,
}

impl Names {
    fn of(dir: &Path, key: &Key, slot: Slot) -> Self {
        let stem = match slot {
            Slot::LastGood => key.0.clone(),
            Slot::Held => format!("{}.held", key.0),
        };
        Self::of_stem(dir, &stem)
    }

    fn of_stem(dir: &Path, stem: &str) -> Self {
        let at = |end: &str| dir.join(format!("{stem}{end}"));
        Self { body: at(""), head: at(".json"), new_head: at(".json.tmp") }
    }
}

fn load(dir: &Path, key: &Key, slot: Slot) -> Option<Copy> {
    let names = Names::of(dir, key, slot);
    // `check` reads while an agent writes: its renames may fall between two of our reads, but not twice.
    match read(&names).or_else(|_| read(&names)) {
        Ok(copy) => copy,
        Err(why) => {
            tracing::warn!(
                "the copy {} of a fetched list is not used: {why}; it will be fetched again",
                names.body.display()
            );
            None
        }
    }
}

/// `None`: there is no copy.
fn read(names: &Names) -> Result<Option<Copy>, String> {
    let bytes = match read_bounded(&names.body, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    let sha256 = digest(&bytes);
    let fitting = [&names.head, &names.new_head]
        .into_iter()
        .filter_map(|path| read_head(path))
        .find(|head| head.sha256 == sha256);
    match fitting {
        Some(head) => Ok(Some(Copy { head, bytes })),
        None => Err("it is damaged: its hash is not the one that was written with it".to_owned()),
    }
}

fn read_head(path: &Path) -> Option<Head> {
    serde_json::from_slice(&read_bounded(path, MAX_HEAD_BYTES).ok()?).ok()
}

/// Ends what a crash left half-way and removes what nobody needs. Files of other names are not touched.
fn clear_up(dir: &Path, used: &[Key], now: SystemTime) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((key, end)) = name.to_str().and_then(split_name) else { continue };
        let stem = if end.starts_with(".held") { format!("{}.held", key.0) } else { key.0.clone() };
        let names = Names::of_stem(dir, &stem);
        let is_old = || {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > KEPT_UNUSED))
        };
        if end.ends_with(".json.tmp") {
            finish(&names)?;
        } else if end.ends_with(".tmp") || (!used.contains(&key) && is_old()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A head under its temporary name: the body's rename was the last step, or was not reached.
fn finish(names: &Names) -> io::Result<()> {
    let fits = |path: &Path, sha256: &str| read_head(path).is_some_and(|head| head.sha256 == sha256);
    let sha256 = read_bounded(&names.body, MAX_BYTES).map(|bytes| digest(&bytes)).unwrap_or_default();
    if !fits(&names.head, &sha256) && fits(&names.new_head, &sha256) {
        std::fs::rename(&names.new_head, &names.head)
    } else {
        std::fs::remove_file(&names.new_head)
    }
}

/// A name that this module gave: a key, and what follows it.
fn split_name(name: &str) -> Option<(Key, &str)> {
    let (key, end) = name.split_at_checked(NAME_DIGITS)?;
    let ours = key.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        && (end.is_empty() || end.starts_with('.'));
    ours.then(|| (Key(key.to_owned()), end))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let write = || -> io::Result<()> {
        // What a crash left under this name goes first: the file must be a new one, of this mode.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| StoreError { path: path.to_owned(), error })
}

/// SHA-256 in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    const URL: &str = "https://a.example/list";

    fn head(bytes: &[u8], etag: &str) -> Head {
        Head {
            url: URL.to_owned(),
            etag: Some(etag.to_owned()),
            last_modified: None,
            fetched_at_ms: 1,
            sha256: digest(bytes),
        }
    }

    fn keep(store: &Store, bytes: &[u8], slot: Slot) {
        let staged = store.stage(&Key::of(URL), head(bytes, "a"), bytes).unwrap();
        store.commit(&staged, slot).unwrap();
    }

    /// A directory with a copy of `former` in it, and its names.
    fn with_former(dir: &Path) -> Names {
        keep(&Store::open(dir.to_owned(), &[]), b"former", Slot::LastGood);
        Names::of(dir, &Key::of(URL), Slot::LastGood)
    }

    fn files(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_crash_leaves_the_former_copy_or_the_new_one() {
        let new_head = serde_json::to_vec(&head(b"new", "b")).unwrap();
        let half = &new_head[..new_head.len() / 2];
        // What a commit had done when it was killed, and the copy that is found.
        type Crash<'a> = (&'static str, Box<dyn Fn(&Names) + 'a>, Option<&'static [u8]>);
        let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
        let temporary = |names: &Names| names.body.with_extension("0.tmp");
        let crashes: Vec<Crash<'_>> = vec![
            ("nothing", Box::new(|_| {}), Some(b"former")),
            ("half of the body", Box::new(|names| write(&temporary(names), b"ne")), Some(b"former")),
            ("the body", Box::new(|names| write(&temporary(names), b"new")), Some(b"former")),
            ("half of the head", Box::new(|names| write(&names.new_head, half)), Some(b"former")),
            ("the head", Box::new(|names| write(&names.new_head, &new_head)), Some(b"former")),
            (
                "the body's rename",
                Box::new(|names| {
                    write(&names.new_head, &new_head);
                    write(&names.body, b"new");
                }),
                Some(b"new"),
            ),
            (
                "both renames",
                Box::new(|names| {
                    write(&names.head, &new_head);
                    write(&names.body, b"new");
                }),
                Some(b"new"),
            ),
            // No crash of ours: damage.
            ("another body", Box::new(|names| write(&names.body, b"neither")), None),
            ("no head", Box::new(|names| std::fs::remove_file(&names.head).unwrap()), None),
            ("no JSON", Box::new(|names| write(&names.head, b"{")), None),
            ("no body", Box::new(|names| std::fs::remove_file(&names.body).unwrap()), None),
        ];
        for (name, crash, expected) in crashes {
            let dir = tempfile::tempdir().unwrap();
            let names = with_former(dir.path());
            crash(&names);
            assert_eq!(last_good(dir.path(), URL).as_deref(), expected, "{name}");
            // The next start ends what was half-way, and comes to the same.
            let store = Store::open(dir.path().to_owned(), &[]);
            assert_eq!(last_good(dir.path(), URL).as_deref(), expected, "{name}, cleared up");
            assert!(!files(dir.path()).iter().any(|file| file.ends_with(".tmp")), "{name}");
            keep(&store, b"next", Slot::LastGood);
            assert_eq!(last_good(dir.path(), URL).unwrap(), b"next", "{name}, written again");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_copy_is_never_used(
            damaged_head in any::<bool>(),
            place in any::<prop::sample::Index>(),
            cut in any::<bool>(),
            flip in 1_u8..,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let names = with_former(dir.path());
            let path = if damaged_head { &names.head } else { &names.body };
            let mut bytes = std::fs::read(path).unwrap();
            let at = place.index(bytes.len());
            bytes[at] ^= flip;
            if cut {
                bytes.truncate(at);
            }
            std::fs::write(path, &bytes).unwrap();
            let found = last_good(dir.path(), URL);
            // Damage of the head may be in a part that does not matter for the body.
            prop_assert!(found.is_none() || (damaged_head && found.unwrap() == b"former"));
        }
    }

    #[test]
    fn copies_are_private_and_named_by_a_hash() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let store = Store::open(dir.clone(), &[]);
        keep(&store, b"good", Slot::LastGood);
        keep(&store, b"held", Slot::Held);
        let key = Key::of(URL);
        // echo -n https://a.example/list | sha256sum | cut -c -32
        let hash = &digest(URL.as_bytes())[..32];
        let expected = ["", ".held", ".held.json", ".json"].map(|end| format!("{hash}{end}")).to_vec();
        assert_eq!(files(&dir), expected);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert!(expected.iter().all(|name| mode(&dir.join(name)) == 0o600));
        assert_eq!(store.load(&key, Slot::LastGood).unwrap().head, head(b"good", "a"));
        assert_eq!(store.load(&key, Slot::Held).unwrap().bytes, b"held");
        // What is staged and not committed leaves nothing.
        drop(store.stage(&key, head(b"x", "a"), b"x").unwrap());
        store.forget(&key, Slot::Held);
        assert_eq!(files(&dir), [hash.to_owned(), format!("{hash}.json")]);
    }

    #[test]
    fn what_is_long_out_of_use_goes() {
        let dir = tempfile::tempdir().unwrap();
        with_former(dir.path());
        std::fs::write(dir.path().join("README"), "somebody's").unwrap();
        std::fs::write(dir.path().join("0123456789abcdef0123456789abcdef-mine"), "somebody's").unwrap();
        let now = SystemTime::now();
        let cases = [
            ("used, and old", vec![Key::of(URL)], now + 2 * KEPT_UNUSED, 4),
            ("not used, and new", vec![], now, 4),
            ("not used, and old", vec![], now + 2 * KEPT_UNUSED, 2),
        ];
        for (name, used, now, left) in cases {
            clear_up(dir.path(), &used, now).unwrap();
            assert_eq!(files(dir.path()).len(), left, "{name}");
        }
    }
}
