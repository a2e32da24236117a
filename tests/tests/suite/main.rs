//! End to end: real packets through real hooks, real requests through a real proxy, in namespaces of the
//! tests' own. A file a subject; a test a behaviour.

#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;
