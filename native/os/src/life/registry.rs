//! All lives, as the keeper sees them, and the number of teardowns under way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

pub use super::agenda::Key;
use super::child::Child;
use crate::shared;
use crate::sync::{Mutex, MutexGuard};

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// How many teardowns are under way.
pub fn under_way() -> usize {
    UNDER_WAY.load(Ordering::Acquire)
}

/// Counts as one in [`UNDER_WAY`] while it lives.
pub(crate) struct Counted;

impl Counted {
    pub(crate) fn new() -> Self {
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
    /// Looks at the process and does what is due. `readable`: its exit fd has just become readable.
    fn attend(&self, readable: bool, now: Instant) -> Attend;
    /// Claims the process, to be ended by its own teardown. Returns how long that takes at most.
    fn claim(&self) -> Duration;
    /// Whether the process has ended.
    fn has_ended(&self) -> bool;
    /// The exit fd is no longer watched.
    fn let_go(&self);
    /// The child process, unless it runs a program of Exile itself.
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

fn living() -> MutexGuard<'static, BTreeMap<Key, Arc<dyn Kept>>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a life for the keeper to attend to.
pub(crate) fn enter(key: Key, life: Arc<dyn Kept>) {
    living().insert(key, life);
}

/// The life with this key.
pub(crate) fn find(key: Key) -> Option<Arc<dyn Kept>> {
    living().get(&key).map(Arc::clone)
}

/// The keys of all lives.
pub(crate) fn keys() -> Vec<Key> {
    living().keys().copied().collect()
}

/// The running processes, except for programs of Exile itself.
pub fn children() -> Vec<Arc<Child>> {
    let lives = all().into_iter();
    lives.filter_map(|life| life.child().cloned()).collect()
}

/// All lives.
pub(crate) fn all() -> Vec<Arc<dyn Kept>> {
    living().values().map(Arc::clone).collect()
}

/// Removes a life that needs no more attention.
pub(crate) fn forget(key: Key) {
    let forgotten = living().remove(&key);
    // Dropping the life may take the lock again.
    drop(forgotten);
}

/// Looks at a life and does what is due, on the keeper's thread. Returns when to look again; `None`
/// means not before its exit fd becomes readable. `unwatch` stops watching the exit fd.
pub(crate) fn look(
    key: Key,
    readable: bool,
    now: Instant,
    unwatch: impl FnOnce(),
) -> Option<Instant> {
    let life = find(key)?;
    // Checked first, so that an exit nobody has attended to is still watched for.
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
