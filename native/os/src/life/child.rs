//! A running program. Everything that ends or observes it goes through its [`ExitFd`], never
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

use super::teardown::Reach;
use crate::errno::Errno;
use crate::exit::{self, Announcer, ExitFd, Look, Registered, Source};
use crate::kernel::{held, number};
use crate::signal::Signal;
use crate::status::Status;
use crate::sync::{Mutex, MutexGuard};

/// The status of a child that is gone may come a little later (measured: up to 0.7 ms). After
/// this long it will not come any more.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// A program that was spawned.
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
    /// An event loop watches the descriptor, which must stay open until it no longer does.
    watched: bool,
    /// A teardown has claimed it: its group ends with it.
    terminating: bool,
    /// When it was first seen gone without a status.
    gone_since: Option<Instant>,
    /// How many need its number, for which it must not be reaped.
    #[cfg(not(by_clone))]
    held: usize,
}

impl State {
    /// The one place where descriptors are closed.
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
        // No code panics while it holds the lock; if it did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process id, which means nothing once the status is known.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// How it ended, or `None` while it runs (or has only just gone). Once known, it stays.
    pub fn try_status(&self) -> Option<Status> {
        let mut state = self.state();
        let status = self.learn_status(&mut state);
        state.tidy();
        status
    }

    /// Fetches the status of a zombie and keeps it; `false` if it cannot be had. The descriptor stays,
    /// for an event loop that has yet to watch it.
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

    /// Whether it runs or is a zombie, so that its number is its own. Gone without a status, it was
    /// reaped by somebody else.
    fn is_there(&self, state: &mut State) -> bool {
        self.learn_status(state).is_none() && state.gone_since.is_none()
    }

    /// The descriptor that becomes readable when the program ends, to be watched by an event loop;
    /// `None` when it is closed. The event loop calls [`unwatched`](Self::unwatched) when it stops.
    pub fn watch(&self) -> Option<Arc<ExitFd>> {
        let mut state = self.state();
        state.watched = state.end.is_some();
        state.end.clone()
    }

    /// The event loop no longer watches the descriptor.
    pub fn unwatched(&self) {
        let mut state = self.state();
        state.watched = false;
        state.tidy();
    }

    /// The same for one look or one poll, kept open by the `Arc`; `None` when it is closed.
    pub fn end(&self) -> Option<Arc<ExitFd>> {
        self.state().end.clone()
    }

    /// Calls `with` with a number that is certainly that of the program; `None` once it has ended.
    #[cfg(by_clone)]
    pub(crate) fn while_unreaped<T>(&self, with: impl FnOnce(libc::pid_t) -> T) -> Option<T> {
        let mut state = self.state();
        self.is_there(&mut state).then(|| with(self.pid))
    }

    /// Keeps the program from being reaped, so that its number stays its own, for as long as the
    /// result lives; `None` once it has ended. Its status is known only after that.
    #[cfg(not(by_clone))]
    pub(crate) fn hold(&self) -> Option<Held<'_>> {
        let mut state = self.state();
        if !self.is_there(&mut state) {
            return None;
        }
        state.held += 1;
        Some(Held(self))
    }

    /// Sends a signal to the program; `ESRCH` once it has ended.
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

    /// Whether it was seen to be gone, its status being unknown.
    pub(crate) fn is_gone(&self) -> bool {
        let state = self.state();
        state.status.is_none() && state.gone_since.is_some()
    }

    /// Whether somebody still holds the pipe that it reads from, `None` where the system does not say;
    /// not once it has ended.
    pub fn waits_for_input(&self) -> Option<bool> {
        match self.try_status() {
            None => held::input_is_held(self.pid),
            Some(_) => Some(false),
        }
    }

    /// Claims the program for its teardown: from here on its group is to end with it, however it
    /// ends. `None`: it had ended by itself before, and its group is its own affair.
    pub(crate) fn claim(&self) -> Option<Arc<ExitFd>> {
        let mut state = self.state();
        if !self.is_there(&mut state) {
            return None;
        }
        state.terminating = true;
        state.end.clone()
    }

    /// Sends a signal to the process group, and to the program itself where it has left its group.
    /// `end` reaches the group also when the program is gone.
    ///
    /// The group comes first. A program that leaves between the two steps gets the signal twice; the
    /// other way round it would get none. The program also gets a signal of its own where its group
    /// could not be signalled. It always gets its own SIGKILL, since nothing is sent after that: between
    /// the two steps it may come back to its group, or change to a user that we may signal.
    pub(crate) fn signal_all(&self, end: &ExitFd, signal: Signal) -> Reach {
        // The lock keeps anyone from reaping the program between the look and the signal.
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

    /// Before the program is reaped, its number is its own and so is that of its group: the last
    /// moment at which what is left of it can be ended, unless the group can be reached later. To
    /// be called under the lock.
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

/// Kills a program that was not announced to anybody, and its group. If the program has ended by
/// itself, its group is killed where it can still be reached.
pub(crate) fn kill(child: &Child) {
    let Some(end) = child.end() else { return };
    child.claim();
    child.signal_all(&end, Signal::KILL);
}

/// Keeps a program from being reaped.
#[cfg(not(by_clone))]
pub(crate) struct Held<'a>(&'a Child);

#[cfg(not(by_clone))]
impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state().held -= 1;
    }
}
