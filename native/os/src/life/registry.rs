//! All processes that live, as the keeper sees them, and how many teardowns are under way.

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

/// One of [`UNDER_WAY`] while it lives.
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

fn living() -> MutexGuard<'static, BTreeMap<Key, Arc<dyn Kept>>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enters a life, for the keeper to attend to.
pub(crate) fn enter(key: Key, life: Arc<dyn Kept>) {
    living().insert(key, life);
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
