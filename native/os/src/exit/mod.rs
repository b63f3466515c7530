//! How Exile learns that a child has ended, and with which status.
//!
//! The Erlang VM ignores SIGCHLD, so the kernel reaps its children and `wait` cannot return their
//! statuses. There are three ways around this. The first one that works is used:
//!
//! | source | exit announced by | status from | SIGCHLD | works on |
//! | --- | --- | --- | --- | --- |
//! | [`Source::Pidfd`] | its pidfd | its pidfd, even when reaped | stays ignored | Linux 6.15 |
//! | [`Source::Wait`] | its pidfd | `waitid` on the pidfd | default | Linux 5.4 |
//! | [`Source::Portable`] | a kqueue; on Linux a thread that waits | `waitpid` | default | POSIX |
//!
//! With SIGCHLD at its default, which must be set through the VM, children stay zombies until their
//! status is fetched, and [`sweep`] reaps foreign zombies: those of children that Exile did not
//! spawn.
//!
//! On Linux, [`choose`] finds out which one works, once, with a child that exits.

mod choice;
mod exit_fd;
#[cfg(by_clone)]
mod probe;
mod source;
#[cfg(target_os = "linux")]
mod waiter;
mod zombies;

pub use choice::choose;
pub(crate) use exit_fd::{Announcer, Look, Watch, look};
pub use exit_fd::{ExitFd, open_count};
pub use source::{Source, source};
pub use zombies::sweep;
pub(crate) use zombies::{Registered, reaped, while_registering};
