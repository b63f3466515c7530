//! A running program. Everything that ends or observes it goes through its [`EndFd`], never
//! through a bare number that may be somebody else's by now.
//!
//! ```text
//! running ──ended──▶ status known ──end no longer watched──▶ descriptor closed
//! ```
//!
//! One lock guards the way: no system call uses the descriptor after it may have been closed, no
//! signal is sent once the status is known, and where there is only a number, it is used before
//! the program is reaped, which happens under this lock. The lock is never held across anything
//! that waits.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::errno::Errno;
use crate::exit::{self, Bell, EndFd, Look, Source};
use crate::kernel::number;
use crate::signal::Signal;
use crate::status::Status;
use crate::sync::{Mutex, MutexGuard};

/// The status of a child that is gone may come a little later (measured: up to 0.7 ms). After
/// this long it will not come any more.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// How many descriptors are open that tell of the end of a child.
pub fn open_count() -> usize {
    exit::open_count()
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
    end: Option<Arc<EndFd>>,
    /// Dropped when the status is known.
    bell: Option<Bell>,
    /// An event loop has the descriptor; it must not be closed before that lets go.
    watched: bool,
    /// Its group is being ended: the first signal of a teardown was sent.
    terminating: bool,
    /// When it was first seen gone without a status.
    gone_since: Option<Instant>,
    /// How many need its number, for which it must not be reaped.
    #[cfg(not(all(target_os = "linux", not(exile_portable))))]
    held: usize,
}

impl Life {
    /// The one place where descriptors are closed.
    fn tidy(&mut self) {
        if self.status.is_some() && !self.watched {
            self.end = None;
        }
    }
}

impl Child {
    pub(crate) fn new(pid: libc::pid_t, end: EndFd, bell: Option<Bell>) -> Arc<Child> {
        let life = Life {
            status: None,
            end: Some(Arc::new(end)),
            bell,
            watched: false,
            terminating: false,
            gone_since: None,
            #[cfg(not(all(target_os = "linux", not(exile_portable))))]
            held: 0,
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
        let mut life = self.life();
        let status = self.settle(&mut life);
        life.tidy();
        status
    }

    /// Learns the status of a zombie for whoever will ask; `false` if that cannot be. The
    /// descriptor stays, for an event loop that has yet to watch it.
    pub(crate) fn learn(&self) -> bool {
        self.settle(&mut self.life()).is_some()
    }

    fn settle(&self, life: &mut Life) -> Option<Status> {
        if life.status.is_some() {
            return life.status;
        }
        #[cfg(not(all(target_os = "linux", not(exile_portable))))]
        if life.held > 0 {
            return None;
        }
        let end = life.end.clone()?;
        if life.terminating && exit::source() != Source::Pidfd {
            match end.is_zombie() {
                // Were it to end only now, the look below would reap it and leave its group alone.
                Ok(false) => return None,
                Ok(true) => self.end_group_while_it_can_be_named(&end),
                // Somebody else has reaped it: its number may be anybody's.
                Err(_) => {}
            }
        }
        let status = match exit::look(&end) {
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
        life.bell = None;
        exit::settled(self);
        life.status
    }

    /// Whether it runs or is a zombie, so that its number is its own. Gone without a status, it was
    /// reaped by somebody else.
    fn is_there(&self, life: &mut Life) -> bool {
        self.settle(life).is_none() && life.gone_since.is_none()
    }

    /// The descriptor that becomes readable when the program ends, to be watched by an event loop;
    /// `None` when it is closed. The watcher calls [`unwatched`](Self::unwatched) when it lets go.
    pub fn watch(&self) -> Option<Arc<EndFd>> {
        let mut life = self.life();
        life.watched = life.end.is_some();
        life.end.clone()
    }

    /// The watcher has let go of the descriptor.
    pub fn unwatched(&self) {
        let mut life = self.life();
        life.watched = false;
        life.tidy();
    }

    /// The same for one look or one poll, kept open by the `Arc`; `None` when it is closed.
    pub fn end(&self) -> Option<Arc<EndFd>> {
        self.life().end.clone()
    }

    /// Calls `with` with a number that is certainly that of the program; `None` once it has ended.
    #[cfg(all(target_os = "linux", not(exile_portable)))]
    pub(crate) fn while_unreaped<T>(&self, with: impl FnOnce(libc::pid_t) -> T) -> Option<T> {
        let mut life = self.life();
        self.is_there(&mut life).then(|| with(self.pid))
    }

    /// Keeps the program from being reaped, so that its number stays its own, for as long as the
    /// result lives; `None` once it has ended. Its status is known only after that.
    #[cfg(not(all(target_os = "linux", not(exile_portable))))]
    pub(crate) fn hold(&self) -> Option<Held<'_>> {
        let mut life = self.life();
        if !self.is_there(&mut life) {
            return None;
        }
        life.held += 1;
        Some(Held(self))
    }

    /// Sends a signal to the program; `ESRCH` once it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let mut life = self.life();
        let is_there = self.is_there(&mut life);
        match &life.end {
            Some(end) if is_there => end.signal(signal),
            _ => Err(Errno::ESRCH),
        }
    }

    /// Sends a signal to the whole process group, through `end` because the group may outlive
    /// the program; `ESRCH` when nobody is left in it or it can no longer be told from others.
    ///
    /// From the first signal on, the whole group is to end: where the rest of it cannot be reached
    /// after the program is gone, as on old kernels, it ends with the program.
    pub(crate) fn signal_group(&self, end: &EndFd, signal: Signal) -> Result<(), Errno> {
        // The lock keeps anyone from reaping the program between the look and the signal.
        let mut life = self.life();
        let is_there = self.is_there(&mut life);
        life.terminating |= signal != Signal::NONE;
        match end.signal_group(signal) {
            Some(result) => result,
            None if is_there => number::signal_group(self.pid, signal),
            None => Err(Errno::ESRCH),
        }
    }

    /// Before the program is reaped, its number is its own and so is that of its group: the last
    /// moment at which what is left of it can be ended, unless the group can be reached later. To
    /// be called under the lock.
    fn end_group_while_it_can_be_named(&self, end: &EndFd) {
        if end.signal_group(Signal::NONE).is_none() {
            let _ = number::signal_group(self.pid, Signal::KILL);
        }
    }
}

/// Keeps a program from being reaped.
#[cfg(not(all(target_os = "linux", not(exile_portable))))]
pub(crate) struct Held<'a>(&'a Child);

#[cfg(not(all(target_os = "linux", not(exile_portable))))]
impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.life().held -= 1;
    }
}
