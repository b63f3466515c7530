//! What the kernel is asked about processes, and told: one function for each question, without
//! state and without policy.
//!
//! | file | a process is | where |
//! | --- | --- | --- |
//! | `number` | its number | everywhere |
//! | `pidfd` | a descriptor of its own | Linux |
//! | `kqueue` | its number, in a queue of events | elsewhere |
//!
//! The model replaces this folder (see `model`).

#[cfg(not(target_os = "linux"))]
pub(crate) mod kqueue;
pub(crate) mod number;
#[cfg(target_os = "linux")]
pub(crate) mod pidfd;
