//! Frames that no ordinary host sends: each odd case under its own name.
