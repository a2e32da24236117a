//! Tables of prefixes, as userspace makes, changes and reads them. What a line means is said in
//! `gateway_common::table`; how the kernel looks addresses up is written there, once, too.

mod directory;
mod layout;
mod lists;
mod live;
mod memory;
mod near;
mod slots;
#[cfg(test)]
mod tests;

pub(crate) use directory::Directory;
pub use directory::ListInfo;
pub(crate) use lists::{Content, Generation, Item, build as build_lists, digest};
pub(crate) use live::{Live, LiveEntry, MAX_EVIDENCE, Put, build as build_live};
pub(crate) use memory::{Memory, Place};
pub(crate) use near::Near;
pub(crate) use slots::{Key, NoRoom};
