//! The exit fd: a descriptor that becomes readable when a child ends. Event loops wait on it, and
//! the child is observed and signalled through it.
//!
//! On Linux it is a pidfd. Without pidfds it is a kqueue, or on Linux a pipe whose other end is
//! closed here when the exit is known (see [`waiter`](super::waiter)); the child is then identified
//! by its pid.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_os = "linux")]
use super::source::{Source, source};
use crate::errno::Errno;
#[cfg(not(target_os = "linux"))]
use crate::kernel::kqueue;
use crate::kernel::number;
#[cfg(target_os = "linux")]
use crate::kernel::pidfd;
use crate::signal::Signal;
use crate::status::Status;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many exit fds are open: one for each child whose status is not known yet or whose exit fd is
/// still watched.
pub fn open_count() -> usize {
    OPEN.load(Ordering::Acquire)
}

/// An exit fd, counted while it is open.
#[derive(Debug)]
pub struct ExitFd {
    fd: OwnedFd,
    name: Name,
    /// Dropped after the descriptor, so that the descriptor is closed before the count goes down.
    _counted: Counted,
}

/// How the child is identified to the kernel.
#[derive(Debug)]
enum Name {
    #[cfg(target_os = "linux")]
    Pidfd,
    /// The pid, which means nothing once the child is reaped.
    Number(libc::pid_t),
}

/// Counts as one in [`OPEN`] while it lives.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Self {
        OPEN.fetch_add(1, Ordering::AcqRel);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Deref for ExitFd {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        &self.fd
    }
}

impl ExitFd {
    fn new(fd: OwnedFd, name: Name) -> ExitFd {
        ExitFd {
            fd,
            name,
            _counted: Counted::new(),
        }
    }

    /// The descriptor, if it is a pidfd.
    #[cfg(by_clone)]
    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        matches!(self.name, Name::Pidfd).then_some(&self.fd)
    }

    // Callers of the functions below must know that a child identified by its pid was not reaped.

    /// Fetches the status of a zombie; `None` while the child runs.
    pub(super) fn reap(&self) -> Result<Option<Status>, Errno> {
        match self.name {
            #[cfg(target_os = "linux")]
            Name::Pidfd => pidfd::reap(&self.fd),
            Name::Number(pid) => number::reap(pid),
        }
    }

    /// The status of a child that the kernel reaped, if the kernel kept it.
    pub(super) fn kept_status(&self) -> Option<Status> {
        match self.name {
            #[cfg(target_os = "linux")]
            Name::Pidfd if source() == Source::Pidfd => pidfd::kept_status(&self.fd),
            _ => None,
        }
    }

    /// Whether the child is a zombie, without reaping it; `ECHILD` if it has been reaped.
    pub(crate) fn is_zombie(&self) -> Result<bool, Errno> {
        match self.name {
            #[cfg(target_os = "linux")]
            Name::Pidfd => pidfd::is_zombie(&self.fd),
            Name::Number(pid) => number::is_zombie(pid),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match self.name {
            #[cfg(target_os = "linux")]
            Name::Pidfd => pidfd::signal(&self.fd, signal),
            Name::Number(pid) => number::signal(pid, signal),
        }
    }

    /// Sends a signal to the process group of the child, even after the child was reaped; `None`
    /// where this is not possible.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unused_variables, reason = "it cannot be done")
    )]
    pub(crate) fn signal_group(&self, signal: Signal) -> Option<Result<(), Errno>> {
        match self.name {
            #[cfg(target_os = "linux")]
            Name::Pidfd => match pidfd::signal_group(&self.fd, signal) {
                // The kernel does not know the flag, or a sandbox forbids it.
                Err(Errno::EINVAL | Errno::ENOSYS) => None,
                Err(Errno::EPERM) if source() == Source::Wait => None,
                result => Some(result),
            },
            Name::Number(_) => None,
        }
    }
}

/// What a child will be watched with. It is made before the child, so that no program is started
/// only to be killed for lack of a descriptor.
#[cfg(target_os = "linux")]
pub(crate) struct Watch(Option<(OwnedFd, Announcer)>);

/// Dropped when the status of the child is known, which makes its [`ExitFd`] readable.
#[cfg(target_os = "linux")]
pub(crate) type Announcer = OwnedFd;

#[cfg(target_os = "linux")]
impl Watch {
    pub(crate) fn new() -> Result<Watch, Errno> {
        if source() != Source::Portable {
            return Ok(Watch(None));
        }
        // Under loom, the model does the waiting.
        #[cfg(not(loom))]
        super::waiter::start()?;
        Ok(Watch(Some(crate::pipe::pair()?)))
    }

    /// Whether the child must be spawned with a pidfd.
    pub(crate) fn wants_pidfd(&self) -> bool {
        self.0.is_none()
    }

    /// Watches a new child that has not been reaped.
    pub(crate) fn begin(
        self,
        pid: libc::pid_t,
        pidfd: Option<OwnedFd>,
    ) -> Result<(ExitFd, Option<Announcer>), Errno> {
        match (self.0, pidfd) {
            (None, Some(pidfd)) => Ok((ExitFd::new(pidfd, Name::Pidfd), None)),
            (Some((end, announcer)), _) => {
                Ok((ExitFd::new(end, Name::Number(pid)), Some(announcer)))
            }
            (None, None) => Err(Errno::ENOSYS),
        }
    }
}

/// What a child will be watched with. It is made before the child, so that no program is started
/// only to be killed for lack of a descriptor.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Watch(kqueue::Queue);

/// A kqueue needs no announcer.
#[cfg(not(target_os = "linux"))]
pub(crate) type Announcer = std::convert::Infallible;

#[cfg(not(target_os = "linux"))]
impl Watch {
    pub(crate) fn new() -> Result<Watch, Errno> {
        kqueue::Queue::new().map(Watch)
    }

    /// Whether the child must be spawned with a pidfd.
    pub(crate) fn wants_pidfd(&self) -> bool {
        false
    }

    /// Watches a new child that has not been reaped.
    pub(crate) fn begin(
        self,
        pid: libc::pid_t,
        _pidfd: Option<OwnedFd>,
    ) -> Result<(ExitFd, Option<Announcer>), Errno> {
        let queue = self.0.until_end_of(pid)?;
        Ok((ExitFd::new(queue, Name::Number(pid)), None))
    }
}

/// The result of one look at a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Running,
    /// The child is gone, but its status is not available: not yet, or never.
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
