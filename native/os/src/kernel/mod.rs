//! The system calls on processes: one function for each, without state and without policy.
//!
//! | file | a process is | where |
//! | --- | --- | --- |
//! | `number` | its number | everywhere |
//! | `pidfd` | a descriptor of its own | Linux |
//! | `clone` | made | Linux |
//! | `kqueue` | its number, in a queue of events | elsewhere |
//!
//! `held` looks at the pipe that a process reads from.
//!
//! Many descriptors are waited for by a `Poller`: `epoll` on Linux, `kqueue` elsewhere, and `poll`,
//! which needs neither, with `--cfg exile_portable`.
//!
//! The model replaces this folder (see `model`).

#[cfg(by_clone)]
pub(crate) mod clone;
#[cfg(by_clone)]
mod epoll;
pub(crate) mod held;
#[cfg(not(target_os = "linux"))]
pub(crate) mod kqueue;
pub(crate) mod number;
#[cfg(target_os = "linux")]
pub(crate) mod pidfd;
#[cfg(by_poll)]
mod poll;

#[cfg(by_clone)]
pub(crate) use epoll::Poller;
#[cfg(not(any(target_os = "linux", by_poll)))]
pub(crate) use kqueue::Poller;
#[cfg(by_poll)]
pub(crate) use poll::Poller;
