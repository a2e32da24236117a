//! Where a line for each request goes.

use std::path::PathBuf;

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where it goes.
    pub to: LogTarget,
    /// How its lines are written.
    pub format: LogFormat,
    /// How many of a million requests it has; errors of servers (5xx) it has all.
    pub sample: u32,
    /// Lines that may wait to be written; more are left out, and counted.
    pub queue: usize,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of this file.
    File(PathBuf),
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// An object a line.
    Json,
    /// The Common Log Format of NCSA's server.
    Common,
    /// The same with Referer and User-Agent, as Apache has it.
    Combined,
}
