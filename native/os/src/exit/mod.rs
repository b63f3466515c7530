//! How the end of a child is learned, and its status.
//!
//! The Erlang VM ignores SIGCHLD, so its children are reaped by the kernel and `wait` has nothing
//! to say. There are three ways out, of which the first that works is taken:
//!
//! | source | its end is told by | its status by | SIGCHLD | works on |
//! | --- | --- | --- | --- | --- |
//! | [`Source::Pidfd`] | its pidfd | its pidfd, also when it was reaped | stays ignored | Linux 6.15 |
//! | [`Source::Wait`] | its pidfd | `waitid` on the pidfd | default | Linux 5.4 |
//! | [`Source::Portable`] | a kqueue; on Linux a thread that waits | `waitpid` | default | POSIX |
//!
//! With SIGCHLD at its default, for which the VM must be told, children stay zombies until their
//! status is fetched, and [`sweep`] buries the zombies that are nobody's.
//!
//! Which one works on a Linux is found out with a child that exits, once, by [`choose`].

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
