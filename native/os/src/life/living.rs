//! The record of one process, and all that live.
//!
//! The status of a process, its signals and its end are all had through its [`Life`]. What else
//! belongs to the process (its pipes, the waits for its end) is its [`Kin`], which the life tells of
//! the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::child::{Child, Reach};
use super::keeper;
use super::teardown::{Next, Progress, Target, Teardown};
use crate::errno::Errno;
use crate::exit::ExitFd;
use crate::shared;
use crate::signal::Signal;
use crate::status::Status;
use crate::sync::{AtomicBool, Mutex, MutexGuard};

/// The exit fd may become readable a little before the status is there: look again after this.
const STATUS_DELAY: Duration = Duration::from_millis(1);

/// What belongs to a process beside its life. Each of these may be called more than once and from
/// any thread, and must not wait.
pub trait Kin: Send + Sync + 'static {
    /// Where a call comes from.
    type Caller: Copy;
    /// The thread of the keeper.
    const KEEPER: Self::Caller;
    /// A teardown has claimed the process.
    fn claimed(&self);
    /// The process has ended.
    fn ended(&self, caller: Self::Caller);
    /// The teardown is over. The process has ended, unless it `refused`: it may not be signalled.
    fn over(&self, refused: Option<Errno>);
}

/// By which the keeper knows a life.
pub type Key = u64;

/// The record of one process.
pub struct Life<K> {
    key: Key,
    child: Arc<Child>,
    /// How the process is ended when nobody says how.
    teardown: Teardown,
    ending: Mutex<Ending>,
    /// Its exit fd has become readable.
    exited: AtomicBool,
    /// It is a program of our own, and not stopped with the others.
    apart: bool,
    kin: K,
}

/// How far the one teardown of a process is.
enum Ending {
    NotClaimed,
    UnderWay(Course),
    /// Over, and the process has ended or may not be signalled.
    Over,
}

/// A teardown under way.
struct Course {
    progress: Progress,
    /// Kept open to reach the group when the process has ended.
    end: Arc<ExitFd>,
    _counted: Counted,
}

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// How many teardowns are under way.
pub fn under_way() -> usize {
    UNDER_WAY.load(Ordering::Acquire)
}

/// One of [`UNDER_WAY`] while it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::AcqRel);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A life as the keeper sees it.
pub(crate) trait Kept: Send + Sync {
    /// Looks at the process and does what is due. `readable`: its exit fd has just become so.
    fn attend(&self, readable: bool, now: Instant) -> Attend;
    /// Claims it, to be ended in its own way; how long that takes at most.
    fn claim(&self) -> Duration;
    /// Whether the process has ended.
    fn has_ended(&self) -> bool;
    /// Nobody watches its exit fd any more.
    fn let_go(&self);
    /// The program, unless it is one of our own.
    fn child(&self) -> Option<&Arc<Child>>;
}

/// When the keeper is to look at a life again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attend {
    /// When its exit fd becomes readable.
    AtExit,
    /// At this time, and when its exit fd becomes readable.
    At(Instant),
    /// Never: the process has ended and its teardown is over.
    Never,
}

shared! {
    /// All lives that the keeper attends to.
    static LIVING: Mutex<BTreeMap<Key, Arc<dyn Kept>>> = Mutex::new(BTreeMap::new());
}

static LAST_KEY: AtomicU64 = AtomicU64::new(0);

fn living() -> MutexGuard<'static, BTreeMap<Key, Arc<dyn Kept>>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The life with this key.
pub(crate) fn find(key: Key) -> Option<Arc<dyn Kept>> {
    living().get(&key).map(Arc::clone)
}

/// The keys of all lives there are.
pub(crate) fn keys() -> Vec<Key> {
    living().keys().copied().collect()
}

/// The programs that run, but for those of our own.
pub fn children() -> Vec<Arc<Child>> {
    let lives = all().into_iter();
    lives.filter_map(|life| life.child().cloned()).collect()
}

/// All lives there are.
pub(crate) fn all() -> Vec<Arc<dyn Kept>> {
    living().values().map(Arc::clone).collect()
}

/// Forgets a life that needs no more attention.
pub(crate) fn forget(key: Key) {
    let forgotten = living().remove(&key);
    // What it drops may ask for the lock.
    drop(forgotten);
}

/// Looks at a life and does what is due, on the keeper's thread. When to look again; without that,
/// when its exit fd becomes readable. `unwatch` ends the wait for that.
pub(crate) fn look(
    key: Key,
    readable: bool,
    now: Instant,
    unwatch: impl FnOnce(),
) -> Option<Instant> {
    let life = find(key)?;
    // Before, so that an end that nobody has attended to is still watched for.
    let ended = life.has_ended();
    let next = life.attend(readable, now);
    if ended || next == Attend::Never {
        unwatch();
        life.let_go();
    }
    match next {
        Attend::At(at) => Some(at),
        Attend::AtExit => None,
        Attend::Never => {
            forget(key);
            None
        }
    }
}

/// Begins to end all processes, each in its own way and all at once. How long the slowest may take.
pub fn stop_all() -> Duration {
    // First all are claimed, as in `end_all`.
    let durations = all().into_iter().map(|life| life.claim());
    let longest = durations.max().unwrap_or(Duration::ZERO);
    for key in keys() {
        let _ = keeper::attend(key);
    }
    longest
}

/// Begins to end processes together, each by its teardown. All are claimed before the first gets a
/// signal: the end of one closes the input of another, which may end of that, and its group is to end
/// with it all the same.
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
    /// Begins the life of a child that was just spawned. If its end cannot be watched for, it is
    /// killed, so that no process runs unseen.
    pub fn begin(child: Arc<Child>, teardown: Teardown, kin: K) -> Result<Arc<Life<K>>, Errno> {
        Life::begin_as(child, teardown, kin, false)
    }

    /// The same for a program of our own, which goes on when all others are stopped.
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
        living().insert(key, Arc::clone(&life) as Arc<dyn Kept>);
        let kept = match life.child.watch() {
            Some(end) => keeper::watch(key, &end),
            // It has ended, and somebody has asked for its status already.
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
        // No code panics while it holds the lock; if it did, the state would still be whole.
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program.
    pub fn child(&self) -> &Arc<Child> {
        &self.child
    }

    /// What belongs to it.
    pub fn kin(&self) -> &K {
        &self.kin
    }

    /// How the process ended, if it has. The first to see it tells its kin.
    pub fn status(&self, caller: K::Caller) -> Option<Status> {
        let status = self.child.try_status()?;
        self.kin.ended(caller);
        Some(status)
    }

    /// How the process is ended when nobody says how.
    pub fn teardown(&self) -> &Teardown {
        &self.teardown
    }

    /// Begins to end the process and its group in the way that was given at its start.
    pub fn end(&self) -> bool {
        self.end_by(&self.teardown)
    }

    /// Claims the process and begins to end it by `teardown`. A teardown that is under way already
    /// is hastened by it. `false`: the process had ended by itself, and nothing is done.
    ///
    /// When this returns the group will be ended whatever happens next. So this comes before any
    /// pipe of the process is closed.
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

    /// Has the keeper do what is due.
    fn see_to_it(&self) {
        // Without a keeper the process could not have begun.
        let _ = keeper::attend(self.key);
    }

    /// Begins to end what is left of the group of a process that has ended itself. `end` is its exit
    /// fd, which was kept for that.
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
        living().insert(self.key, Arc::clone(self) as Arc<dyn Kept>);
        let _ = keeper::attend(self.key);
    }

    /// How long its own teardown takes at most.
    pub fn patience(&self) -> Duration {
        self.teardown.duration()
    }

    /// Does what is due of the teardown. When more will be due; the end of the process may bring
    /// it forward.
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
        // Still under the lock: a new claim must not be told that it is over.
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
                // The teardown may not have seen it.
                continue;
            }
            // An exit that is announced has a status, now or soon.
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
