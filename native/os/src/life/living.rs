//! The record of one process.
//!
//! The status, the signals and the end of a process all go through its [`Life`]. Everything else
//! that belongs to the process (its pipes, the waits for its end) is its [`Kin`], which the life
//! notifies of the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::child::Child;
use super::keeper;
use super::registry::{self, Attend, Counted, Kept, Key, all, forget, keys};
use super::teardown::{Next, Progress, Reach, Target, Teardown};
use crate::errno::Errno;
use crate::exit::ExitFd;
use crate::signal::Signal;
use crate::status::Status;
use crate::sync::{AtomicBool, Mutex, MutexGuard};

/// The exit fd may become readable a little before the status is available. Look again after this.
const STATUS_DELAY: Duration = Duration::from_millis(1);

/// What belongs to a process besides its life. Each function may be called more than once and from
/// any thread, and must not block.
pub trait Kin: Send + Sync + 'static {
    /// Where a call comes from.
    type Caller: Copy;
    /// The keeper's thread.
    const KEEPER: Self::Caller;
    /// A teardown has claimed the process.
    fn claimed(&self);
    /// The process has ended.
    fn ended(&self, caller: Self::Caller);
    /// The teardown is over. The process has ended, unless it could not be signalled (`refused`).
    fn over(&self, refused: Option<Errno>);
}

/// The record of one process.
pub struct Life<K> {
    key: Key,
    child: Arc<Child>,
    /// The teardown used if no other is given.
    teardown: Teardown,
    ending: Mutex<Ending>,
    /// The exit fd has become readable.
    exited: AtomicBool,
    /// The process runs a program of Exile itself, and is not stopped with the others.
    apart: bool,
    kin: K,
}

/// The state of a process's teardown. There is never more than one at a time.
enum Ending {
    NotClaimed,
    UnderWay(Course),
    /// Over: the process has ended or may not be signalled.
    Over,
}

/// A teardown under way.
struct Course {
    progress: Progress,
    /// Kept open to reach the group when the process has ended.
    end: Arc<ExitFd>,
    _counted: Counted,
}

static LAST_KEY: AtomicU64 = AtomicU64::new(0);

/// Begins to end all processes at once, each by its own teardown. Returns how long the slowest may
/// take.
pub fn stop_all() -> Duration {
    // All are claimed first, as in `end_all`.
    let durations = all().into_iter().map(|life| life.claim());
    let longest = durations.max().unwrap_or(Duration::ZERO);
    for key in keys() {
        let _ = keeper::attend(key);
    }
    longest
}

/// Begins to end several processes together, each by its teardown. All are claimed before the first
/// one is signalled: the end of one closes the input of another, which may end because of that, and
/// its group must still be ended with it.
pub fn end_all<K: Kin>(lives: &[(Arc<Life<K>>, Teardown)]) {
    let now = Instant::now();
    for (life, teardown) in lives {
        life.claim_by(teardown, now);
    }
    for (life, _) in lives {
        life.see_to_it();
    }
}

impl<K: Kin> Life<K> {
    /// Begins the life of a child that was just spawned. If its exit cannot be watched, it is
    /// killed, so that no process runs unseen.
    pub fn begin(child: Arc<Child>, teardown: Teardown, kin: K) -> Result<Arc<Life<K>>, Errno> {
        Life::begin_as(child, teardown, kin, false)
    }

    /// Like [`begin`](Self::begin), for a program of Exile itself, which goes on when all others
    /// are stopped.
    pub fn begin_apart(
        child: Arc<Child>,
        teardown: Teardown,
        kin: K,
    ) -> Result<Arc<Life<K>>, Errno> {
        Life::begin_as(child, teardown, kin, true)
    }

    fn begin_as(
        child: Arc<Child>,
        teardown: Teardown,
        kin: K,
        apart: bool,
    ) -> Result<Arc<Life<K>>, Errno> {
        let key = LAST_KEY.fetch_add(1, Ordering::Relaxed);
        let life = Arc::new(Life {
            key,
            child,
            teardown,
            ending: Mutex::new(Ending::NotClaimed),
            exited: AtomicBool::new(false),
            apart,
            kin,
        });
        registry::enter(key, Arc::clone(&life) as Arc<dyn Kept>);
        let kept = match life.child.watch() {
            Some(end) => keeper::watch(key, &end),
            // It has ended, and its status has been fetched already.
            None => keeper::attend(key),
        };
        match kept {
            Ok(()) => Ok(life),
            Err(errno) => {
                life.child.unwatched();
                forget(key);
                super::child::kill(&life.child);
                Err(errno)
            }
        }
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        // No code panics while it holds the lock. If it did, the state would still be consistent.
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The child process.
    pub fn child(&self) -> &Arc<Child> {
        &self.child
    }

    /// What belongs to the process.
    pub fn kin(&self) -> &K {
        &self.kin
    }

    /// The exit status, if the process has ended. In that case the kin is notified.
    pub fn status(&self, caller: K::Caller) -> Option<Status> {
        let status = self.child.try_status()?;
        self.kin.ended(caller);
        Some(status)
    }

    /// The teardown used if no other is given.
    pub fn teardown(&self) -> &Teardown {
        &self.teardown
    }

    /// Begins to end the process and its group by the teardown that was given at its start.
    pub fn end(&self) -> bool {
        self.end_by(&self.teardown)
    }

    /// Claims the process and begins to end it by `teardown`. If a teardown is already under way,
    /// this one can only hasten it. Returns `false`, and does nothing, if the process had ended by
    /// itself.
    ///
    /// When this returns, the group will be ended whatever happens next. So call it before any pipe
    /// of the process is closed.
    pub fn end_by(&self, teardown: &Teardown) -> bool {
        let claimed = self.claim_by(teardown, Instant::now());
        if claimed {
            self.see_to_it();
        }
        claimed
    }

    fn claim_by(&self, teardown: &Teardown, now: Instant) -> bool {
        let mut ending = self.ending();
        match &mut *ending {
            Ending::UnderWay(course) => course.progress.hasten(teardown, now),
            Ending::NotClaimed | Ending::Over => {
                let Some(end) = self.child.claim() else {
                    return false;
                };
                *ending = Ending::UnderWay(Course {
                    progress: Progress::new(teardown.clone(), now),
                    end,
                    _counted: Counted::new(),
                });
                self.kin.claimed();
            }
        }
        true
    }

    /// Asks the keeper to do what is due.
    fn see_to_it(&self) {
        // This cannot fail: without a keeper the life could not have begun.
        let _ = keeper::attend(self.key);
    }

    /// Begins to end what is left of the group of a process that ended by itself. `end` is its exit
    /// fd, which was kept for this.
    pub fn end_rest(self: &Arc<Self>, end: Arc<ExitFd>) {
        {
            let mut ending = self.ending();
            if matches!(*ending, Ending::UnderWay(_)) {
                return;
            }
            *ending = Ending::UnderWay(Course {
                progress: Progress::new(self.teardown.clone(), Instant::now()),
                end,
                _counted: Counted::new(),
            });
            self.kin.claimed();
        }
        registry::enter(self.key, Arc::clone(self) as Arc<dyn Kept>);
        let _ = keeper::attend(self.key);
    }

    /// How long the process's own teardown takes at most.
    pub fn patience(&self) -> Duration {
        self.teardown.duration()
    }

    /// Does what is due in the teardown. Returns when more will be due; the end of the process may
    /// bring that forward.
    fn advance(&self, now: Instant) -> Option<Instant> {
        let mut ending = self.ending();
        let Ending::UnderWay(course) = &mut *ending else {
            return None;
        };
        let target = Claimed {
            child: &self.child,
            end: &course.end,
        };
        let refused = match course.progress.advance(&target, now) {
            Next::At(at) => return Some(at),
            Next::AtEnd => return None,
            Next::Done => None,
            Next::Refused(errno) => Some(errno),
        };
        *ending = Ending::Over;
        // Still under the lock, so that a new claim is not told that it is over.
        self.kin.over(refused);
        None
    }
}

impl<K: Kin> Kept for Life<K> {
    fn attend(&self, readable: bool, now: Instant) -> Attend {
        if readable {
            self.exited.store(true, Ordering::Release);
        }
        loop {
            let seen = self.status(K::KEEPER).is_some();
            let next = self.advance(now);
            let ended = self.status(K::KEEPER).is_some();
            if ended && !seen {
                // The teardown may not have seen the exit.
                continue;
            }
            // An exit that was announced has a status, now or soon.
            let awaited = !ended && (self.exited.load(Ordering::Acquire) || self.child.is_gone());
            let soon = awaited.then(|| now + STATUS_DELAY);
            return match next.into_iter().chain(soon).min() {
                Some(at) => Attend::At(at),
                None if ended => Attend::Never,
                None => Attend::AtExit,
            };
        }
    }

    fn has_ended(&self) -> bool {
        self.child.try_status().is_some()
    }

    fn let_go(&self) {
        self.child.unwatched();
    }

    fn claim(&self) -> Duration {
        if !self.apart && self.claim_by(&self.teardown, Instant::now()) {
            self.teardown.duration()
        } else {
            Duration::ZERO
        }
    }

    fn child(&self) -> Option<&Arc<Child>> {
        (!self.apart).then_some(&self.child)
    }
}

/// A process as its teardown sees it.
struct Claimed<'a> {
    child: &'a Child,
    end: &'a ExitFd,
}

impl Target for Claimed<'_> {
    fn has_ended(&self) -> bool {
        self.child.try_status().is_some()
    }

    fn signal(&self, signal: Signal) -> Reach {
        self.child.signal_all(self.end, signal)
    }
}
