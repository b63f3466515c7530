//! A running program. Everything that ends or observes it goes through its pidfd, never through
//! a bare number that may be somebody else's by now.
//!
//! ```text
//! running ──ended──▶ status known ──pidfd no longer watched──▶ pidfd closed
//! ```
//!
//! One lock guards the way: no system call uses the pidfd after it may have been closed, and no
//! signal is sent once the status is known. The lock is never held across anything that waits.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::errno::Errno;
use crate::exit::{self, Look, Source};
use crate::kernel;
use crate::signal::Signal;
use crate::status::Status;
use crate::sync::{Mutex, MutexGuard};

/// The status of a child that is gone may come a little later (measured: up to 0.7 ms). After
/// this long it will not come any more.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many pidfds are open: one for each child whose status is not known yet, or that somebody
/// still watches.
pub fn open_count() -> usize {
    OPEN.load(Ordering::Acquire)
}

/// An open pidfd, counted.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    /// Dropped after the descriptor: what is no longer counted is closed.
    _counted: Counted,
}

impl PidFd {
    fn new(fd: OwnedFd) -> Self {
        PidFd {
            fd,
            _counted: Counted::new(),
        }
    }
}

/// One of [`OPEN`] while it lives.
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

impl Deref for PidFd {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        &self.fd
    }
}

/// A program that was spawned.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    status: Option<Status>,
    pidfd: Option<Arc<PidFd>>,
    /// An event loop has the descriptor; it must not be closed before that lets go.
    watched: bool,
    /// Its group is being ended: the first signal of a teardown was sent.
    terminating: bool,
    /// When it was first seen gone without a status.
    gone_since: Option<Instant>,
}

impl Life {
    /// The one place where the pidfd is closed.
    fn tidy(&mut self) {
        if self.status.is_some() && !self.watched {
            self.pidfd = None;
        }
    }
}

impl Child {
    pub(crate) fn new(pid: libc::pid_t, pidfd: OwnedFd) -> Arc<Child> {
        let life = Life {
            status: None,
            pidfd: Some(Arc::new(PidFd::new(pidfd))),
            watched: false,
            terminating: false,
            gone_since: None,
        };
        Arc::new(Child {
            pid,
            life: Mutex::new(life),
        })
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        // No code panics while it holds the lock; if it did, the state would still be whole.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process id, which means nothing once the status is known.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// How it ended, or `None` while it runs (or has only just gone). Once known, it stays.
    pub fn try_status(&self) -> Option<Status> {
        self.settle(&mut self.life())
    }

    fn settle(&self, life: &mut Life) -> Option<Status> {
        if life.status.is_some() {
            return life.status;
        }
        let pidfd = life.pidfd.clone()?;
        if life.terminating && exit::source() == Source::Wait {
            match kernel::is_zombie(&pidfd) {
                // Were it to end only now, the look below would reap it and leave its group alone.
                Ok(false) => return None,
                Ok(true) => self.end_group_while_it_can_be_named(&pidfd),
                // Somebody else has reaped it: its number may be anybody's.
                Err(_) => {}
            }
        }
        let status = match exit::look(&pidfd) {
            Look::Running => return None,
            Look::Ended(status) => status,
            Look::Gone => {
                let since = *life.gone_since.get_or_insert_with(Instant::now);
                if since.elapsed() < STATUS_PATIENCE {
                    return None;
                }
                Status::Unknown
            }
        };
        life.status = Some(status);
        life.tidy();
        exit::settled(self);
        life.status
    }

    /// The pidfd, to be watched by an event loop; `None` when it is closed. It becomes readable
    /// when the program ends. The watcher calls [`unwatched`](Self::unwatched) when it lets go.
    pub fn watch(&self) -> Option<Arc<PidFd>> {
        let mut life = self.life();
        life.watched = life.pidfd.is_some();
        life.pidfd.clone()
    }

    /// The watcher has let go of the pidfd.
    pub fn unwatched(&self) {
        let mut life = self.life();
        life.watched = false;
        life.tidy();
    }

    /// The pidfd for one look or one poll, kept open by the `Arc`; `None` when it is closed.
    pub fn pidfd(&self) -> Option<Arc<PidFd>> {
        self.life().pidfd.clone()
    }

    /// Sends a signal to the program; `ESRCH` once it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let mut life = self.life();
        if self.settle(&mut life).is_some() {
            return Err(Errno::ESRCH);
        }
        match &life.pidfd {
            Some(pidfd) => kernel::signal(pidfd, signal),
            None => Err(Errno::ESRCH),
        }
    }

    /// Sends a signal to the whole process group, through `pidfd` because the group may outlive
    /// the program; `ESRCH` when nobody is left in it or it can no longer be told from others.
    ///
    /// From the first signal on, the whole group is to end: on old kernels, where the rest of it
    /// cannot be reached after the program is gone, it ends with the program.
    pub(crate) fn signal_group(&self, pidfd: &PidFd, signal: Signal) -> Result<(), Errno> {
        // The lock keeps anyone from reaping the program between the look and the signal.
        let mut life = self.life();
        self.settle(&mut life);
        life.terminating |= signal != Signal::NONE;
        match kernel::signal_group(pidfd, signal) {
            Err(Errno::EINVAL) if life.status.is_none() && life.gone_since.is_none() => {
                kernel::signal_group_number(self.pid, signal)
            }
            Err(Errno::EINVAL) => Err(Errno::ESRCH),
            result => result,
        }
    }

    /// Before the program is reaped, its number is its own and so is that of its group: the last
    /// moment at which kernels that cannot signal a group by a pidfd can end what is left of it.
    /// To be called under the lock.
    fn end_group_while_it_can_be_named(&self, pidfd: &PidFd) {
        if kernel::signal_group(pidfd, Signal::NONE) == Err(Errno::EINVAL) {
            let _ = kernel::signal_group_number(self.pid, Signal::KILL);
        }
    }
}
