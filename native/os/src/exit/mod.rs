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

mod exit_fd;
#[cfg(by_clone)]
mod probe;
#[cfg(target_os = "linux")]
mod waiter;
mod zombies;

use std::sync::atomic::{AtomicU8, Ordering};

pub(crate) use exit_fd::{Announcer, Watch};
pub use exit_fd::{ExitFd, open_count};
pub use zombies::sweep;
pub(crate) use zombies::{reaped, while_registering};

use crate::errno::Errno;
use crate::status::Status;

/// Where statuses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The pidfd, even after the kernel reaped the child.
    Pidfd,
    /// `waitid` on a pidfd; children are zombies until then.
    Wait,
    /// `waitpid`; children are zombies until then, and never more than a number.
    Portable,
}

/// Whether processes can be spawned with a pidfd.
const HAS_PIDFDS: bool = cfg!(by_clone);

const UNCHOSEN: u8 = 0;
const PIDFD: u8 = 1;
const WAIT: u8 = 2;
const PORTABLE: u8 = 3;
static SOURCE: AtomicU8 = AtomicU8::new(UNCHOSEN);

/// The source in use. Before [`choose`] it is the first that may work.
pub fn source() -> Source {
    if !HAS_PIDFDS {
        return Source::Portable;
    }
    match SOURCE.load(Ordering::Acquire) {
        WAIT => Source::Wait,
        PORTABLE => Source::Portable,
        _ => Source::Pidfd,
    }
}

/// Finds out where statuses come from on this kernel and keeps the answer. With `Some(source)`
/// there is nothing to find out, nor is there on systems without pidfds. Must first be called with
/// SIGCHLD ignored for the answer to mean anything; unless that is [`Source::Pidfd`], the caller
/// sets SIGCHLD to its default. Fails where the system has no process, memory or descriptor to give
/// for finding out: nothing is kept then, so that a later call finds out.
pub fn choose(wanted: Option<Source>) -> Result<Source, Errno> {
    let source = match (wanted, SOURCE.load(Ordering::Acquire)) {
        (Some(source), _) => source,
        (None, UNCHOSEN) => probe()?,
        // Found before. With SIGCHLD no longer ignored the answer might now be another one.
        (None, _) => return Ok(source()),
    };
    let value = match source {
        Source::Pidfd => PIDFD,
        Source::Wait => WAIT,
        Source::Portable => PORTABLE,
    };
    SOURCE.store(value, Ordering::Release);
    Ok(self::source())
}

#[cfg(by_clone)]
fn probe() -> Result<Source, Errno> {
    probe::probe()
}

#[cfg(not(by_clone))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn probe() -> Result<Source, Errno> {
    Ok(Source::Portable)
}

/// What one look at a child found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Running,
    /// It is gone, but its status cannot be had: not yet, or not at all.
    Gone,
    Ended(Status),
}

/// Looks at a child that was not reaped by this process.
pub(crate) fn look(end: &ExitFd) -> Look {
    match end.reap() {
        Ok(None) => Look::Running,
        Ok(Some(status)) => Look::Ended(status),
        Err(_) => match end.kept_status() {
            Some(status) => Look::Ended(status),
            None => Look::Gone,
        },
    }
}
