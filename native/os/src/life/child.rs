//! A running process. It is only ended or observed through its [`ExitFd`], never through a bare
//! pid, which may belong to another process by now.
//!
//! ```text
//! running ──ended──▶ status known ──end no longer watched──▶ descriptor closed
//! ```
//!
//! One lock protects these transitions. No system call uses the descriptor after it may have been
//! closed, and no signal is sent once the status is known. Where the process can only be named by
//! its pid, the pid is used before the process is reaped, which happens under this lock. The lock
//! is never held across anything that blocks.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::teardown::Reach;
use crate::errno::Errno;
use crate::exit::{self, Announcer, ExitFd, Look, Registered, Source};
use crate::kernel::{held, number};
use crate::signal::Signal;
use crate::status::Status;
use crate::sync::{Mutex, MutexGuard};

/// The status of a process may arrive a little after the process is gone (measured: up to 0.7 ms).
/// After this long it will not arrive any more.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// A process that was spawned.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    status: Option<Status>,
    end: Option<Arc<ExitFd>>,
    /// Dropped when the status is known.
    announcer: Option<Announcer>,
    /// An event loop has the descriptor, which must not be closed before the event loop drops it.
    watched: bool,
    /// A teardown has claimed the process: its group ends with it.
    terminating: bool,
    /// When the process was first seen to be gone without a status.
    gone_since: Option<Instant>,
    /// How many callers need the pid. While there are any, the process must not be reaped.
    #[cfg(not(by_clone))]
    held: usize,
}

impl State {
    /// The only place where descriptors are closed.
    fn tidy(&mut self) {
        if self.status.is_some() && !self.watched {
            self.end = None;
        }
    }
}

impl Child {
    pub(crate) fn new(pid: libc::pid_t, end: ExitFd, announcer: Option<Announcer>) -> Arc<Child> {
        let state = State {
            status: None,
            end: Some(Arc::new(end)),
            announcer,
            watched: false,
            terminating: false,
            gone_since: None,
            #[cfg(not(by_clone))]
            held: 0,
        };
        Arc::new(Child {
            pid,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock. If it did, the state would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process id, which means nothing once the status is known.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// The exit status, or `None` while the process runs (or has only just gone). Once known, it
    /// stays.
    pub fn try_status(&self) -> Option<Status> {
        let mut state = self.state();
        let status = self.learn_status(&mut state);
        state.tidy();
        status
    }

    /// Fetches the status of a zombie and keeps it; `false` if it is not available. The descriptor
    /// stays open for an event loop that has yet to watch it.
    pub(crate) fn learn(&self) -> bool {
        self.learn_status(&mut self.state()).is_some()
    }

    fn learn_status(&self, state: &mut State) -> Option<Status> {
        if state.status.is_some() {
            return state.status;
        }
        #[cfg(not(by_clone))]
        if state.held > 0 {
            return None;
        }
        let end = state.end.clone()?;
        if state.terminating && exit::source() != Source::Pidfd {
            match end.is_zombie() {
                // If it ended only now, the look below would reap it and leave its group alone.
                Ok(false) => return None,
                Ok(true) => self.end_group_while_it_can_be_named(&end),
                // It was reaped elsewhere: its pid may belong to another process.
                Err(_) => {}
            }
        }
        let status = match exit::look(&end) {
            Look::Running => return None,
            Look::Ended(status) => status,
            Look::Gone => {
                let since = *state.gone_since.get_or_insert_with(Instant::now);
                if since.elapsed() < STATUS_PATIENCE {
                    return None;
                }
                Status::Unknown
            }
        };
        state.status = Some(status);
        state.announcer = None;
        exit::reaped(self);
        state.status
    }

    /// Whether the process runs or is a zombie, so that its pid is still its own. If it is gone
    /// without a status, it was reaped elsewhere.
    fn is_there(&self, state: &mut State) -> bool {
        self.learn_status(state).is_none() && state.gone_since.is_none()
    }

    /// The exit fd, to be watched by an event loop; `None` if it is closed. The event loop calls
    /// [`unwatched`](Self::unwatched) when it stops watching.
    pub fn watch(&self) -> Option<Arc<ExitFd>> {
        let mut state = self.state();
        state.watched = state.end.is_some();
        state.end.clone()
    }

    /// The event loop has stopped watching the descriptor.
    pub fn unwatched(&self) {
        let mut state = self.state();
        state.watched = false;
        state.tidy();
    }

    /// The exit fd for a single look or poll, kept open by the `Arc`; `None` if it is closed.
    pub fn end(&self) -> Option<Arc<ExitFd>> {
        self.state().end.clone()
    }

    /// Calls `with` with the pid, which belongs to the process during the call; `None` once the
    /// process has ended.
    #[cfg(by_clone)]
    pub(crate) fn while_unreaped<T>(&self, with: impl FnOnce(libc::pid_t) -> T) -> Option<T> {
        let mut state = self.state();
        self.is_there(&mut state).then(|| with(self.pid))
    }

    /// Prevents the process from being reaped while the result lives, so that its pid stays its
    /// own; `None` once it has ended. Its status becomes known only after the result is dropped.
    #[cfg(not(by_clone))]
    pub(crate) fn hold(&self) -> Option<Held<'_>> {
        let mut state = self.state();
        if !self.is_there(&mut state) {
            return None;
        }
        state.held += 1;
        Some(Held(self))
    }

    /// Sends a signal to the process; `ESRCH` once it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let mut state = self.state();
        let is_there = self.is_there(&mut state);
        match &state.end {
            Some(end) if is_there => end.signal(signal),
            _ => Err(Errno::ESRCH),
        }
    }

    /// Sends a signal to the process group that the program leads; `ESRCH` once the program has ended.
    pub fn signal_group(&self, signal: Signal) -> Result<(), Errno> {
        // The lock keeps anyone from reaping the program between the look and the signal.
        let mut state = self.state();
        let is_there = self.is_there(&mut state);
        match &state.end {
            Some(end) if is_there => end
                .signal_group(signal)
                .unwrap_or_else(|| number::signal_group(self.pid, signal)),
            _ => Err(Errno::ESRCH),
        }
    }

    /// Whether the process was seen to be gone while its status is unknown.
    pub(crate) fn is_gone(&self) -> bool {
        let state = self.state();
        state.status.is_none() && state.gone_since.is_some()
    }

    /// Whether anybody still holds the writing end of the pipe that is the standard input of the
    /// process. `None` where the system does not say; `false` once the process has ended.
    pub fn waits_for_input(&self) -> Option<bool> {
        match self.try_status() {
            None => held::input_is_held(self.pid),
            Some(_) => Some(false),
        }
    }

    /// Claims the process for its teardown: from here on its group is ended with it, however it
    /// ends. `None` if it had already ended by itself; its group is then left alone.
    pub(crate) fn claim(&self) -> Option<Arc<ExitFd>> {
        let mut state = self.state();
        if !self.is_there(&mut state) {
            return None;
        }
        state.terminating = true;
        state.end.clone()
    }

    /// Sends a signal to the process group, and to the process itself if it has left its group.
    /// `end` reaches the group even when the process is gone.
    ///
    /// The group is signalled first. A process that leaves the group between the two steps gets the
    /// signal twice; in the other order it would get none. The process is also signalled directly
    /// if the group could not be, and always for SIGKILL, since nothing more is sent after that:
    /// between the two steps the process may return to its group, or become one that we may signal.
    pub(crate) fn signal_all(&self, end: &ExitFd, signal: Signal) -> Reach {
        // The lock prevents others from reaping the process between the look and the signal.
        let mut state = self.state();
        let is_there = self.is_there(&mut state);
        let group = match end.signal_group(signal) {
            Some(result) => result,
            None if is_there => number::signal_group(self.pid, signal),
            None => Err(Errno::ESRCH),
        };
        let program = if !is_there {
            Err(Errno::ESRCH)
        } else if signal != Signal::KILL
            && group.is_ok()
            && number::group_of(self.pid) == Ok(self.pid)
        {
            end.signal(Signal::NONE)
        } else {
            end.signal(signal)
        };
        Reach { program, group }
    }

    /// Kills what is left of the group before the process is reaped. Until then the pid, and so the
    /// number of the group, cannot be reused: this is the last chance, unless the group can be
    /// reached later. Call it under the lock.
    fn end_group_while_it_can_be_named(&self, end: &ExitFd) {
        if end.signal_group(Signal::NONE).is_none() {
            let _ = number::signal_group(self.pid, Signal::KILL);
        }
    }
}

impl Registered for Child {
    fn pid(&self) -> libc::pid_t {
        self.pid
    }

    fn learn(&self) -> bool {
        Child::learn(self)
    }
}

/// Kills a process that nobody has been told about, and its group. If the process has ended by
/// itself, its group is still killed where it can be reached.
pub(crate) fn kill(child: &Child) {
    let Some(end) = child.end() else { return };
    child.claim();
    child.signal_all(&end, Signal::KILL);
}

/// Prevents a process from being reaped.
#[cfg(not(by_clone))]
pub(crate) struct Held<'a>(&'a Child);

#[cfg(not(by_clone))]
impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state().held -= 1;
    }
}
