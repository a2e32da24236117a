//! The memory of a table: a kernel map that is mapped into this process, or pages of this process alone.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use gateway_common::abi::HEAD_LINES;
use gateway_common::table::{LINE_WORDS, Lines, Words};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::near::Near;
use crate::error::Error;
use crate::store::{boot_ns, kernel};

/// Bytes of a line.
const LINE_BYTES: usize = LINE_WORDS * 8;

/// Lines that this process, other processes and the kernel's programs may all look at while one writer, who
/// holds the lists' lock, changes them.
pub(crate) struct Memory {
    first: NonNull<AtomicU64>,
    lines: u32,
    /// Where programs read what changes in a table that is in force, beside its own lines.
    place: OnceLock<Place>,
}

/// Where a table in force shows its head, and what is near the prefixes of all tables.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) heads: Arc<Memory>,
    /// Of the heads.
    pub(crate) row: u32,
    pub(crate) near: Arc<Near>,
}

// SAFETY: the memory is reached through atomics only, and belongs to this value until it is dropped.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl Memory {
    /// Zeroed lines of this process.
    pub(crate) fn anonymous(lines: u32) -> Result<Self, Error> {
        let bytes = lines as usize * LINE_BYTES;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let first = unsafe {
            mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        Self::mapped(first, lines)
    }

    /// The lines of a map.
    pub(crate) fn of_map(map: BorrowedFd<'_>, lines: u32) -> Result<Self, Error> {
        let bytes = lines as usize * LINE_BYTES;
        // SAFETY: as above; what others write there is read through atomics.
        let first = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map, 0)
        };
        Self::mapped(first, lines)
    }

    fn mapped(first: rustix::io::Result<*mut std::ffi::c_void>, lines: u32) -> Result<Self, Error> {
        let first = first.map_err(|error| kernel("map a table into memory", error))?;
        let first = NonNull::new(first.cast()).ok_or_else(|| Error::Kernel {
            what: "map a table into memory".to_owned(),
            why: "it gave the address 0".to_owned(),
        })?;
        Ok(Self { first, lines, place: OnceLock::new() })
    }

    /// How many lines there are.
    pub(crate) fn lines(&self) -> u32 {
        self.lines
    }

    /// Every word.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, this long, readable and writable, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.lines as usize * LINE_WORDS) }
    }

    /// One word; beyond the end, a word that nobody reads.
    pub(crate) fn at(&self, line: u32, word: usize) -> &AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        self.words().get(line as usize * LINE_WORDS + word).unwrap_or(&NOWHERE)
    }

    /// A word's value.
    pub(crate) fn get(&self, line: u32, word: usize) -> u64 {
        self.at(line, word).load(Ordering::Acquire)
    }

    /// Writes a word; what was written before is seen before it.
    pub(crate) fn set(&self, line: u32, word: usize, value: u64) {
        self.at(line, word).store(value, Ordering::Release);
        if let Some(place) = self.place.get().filter(|_| line < HEAD_LINES as u32) {
            place.heads.set(place.row * HEAD_LINES as u32 + line, word, value);
        }
    }

    /// Sets bits of a word.
    pub(crate) fn set_bits(&self, line: u32, word: usize, bits: u64) {
        let former = self.get(line, word);
        if former & bits != bits {
            self.set(line, word, former | bits);
        }
    }

    /// What programs look at before they look into this table, if it is in force.
    pub(crate) fn near(&self) -> Option<&Near> {
        self.place.get().map(|place| &*place.near)
    }

    /// Shows this table's head in a place, where it is kept up to date from now on.
    pub(crate) fn show_at(&self, place: Place) {
        for line in 0..HEAD_LINES as u32 {
            for word in 0..LINE_WORDS {
                place.heads.set(place.row * HEAD_LINES as u32 + line, word, self.get(line, word));
            }
        }
        // A table has one place as long as it is in force.
        let _ = self.place.set(place);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let bytes = self.lines as usize * LINE_BYTES;
        // SAFETY: the mapping was made with this address and length, and nothing borrows it any more.
        let _ = unsafe { munmap(self.first.as_ptr().cast(), bytes) };
    }
}

impl<'a> Lines for &'a Memory {
    type Line = MemoryLine<'a>;

    fn line(&self, index: u32) -> Option<MemoryLine<'a>> {
        let start = index as usize * LINE_WORDS;
        let memory: &'a Memory = self;
        memory.words().get(start..start + LINE_WORDS).map(MemoryLine)
    }

    fn now_ns(&self) -> u64 {
        boot_ns()
    }
}

/// One line.
pub(crate) struct MemoryLine<'a>(&'a [AtomicU64]);

impl Words for MemoryLine<'_> {
    fn word(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }
}
