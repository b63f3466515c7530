//! Zombies, where the kernel leaves them to us: those of our own children and those of strangers
//! (orphans, when the VM is PID 1 of a container) stand in one queue.
//!
//! Code that finds a zombie asks here whose it is. A zombie that nobody knows may be a child that was
//! made a moment ago and is not entered yet. So it is a stranger's only when all spawns are done that
//! were under way when it was found: later ones cannot have made it, because it had its number
//! already, unless it was reaped meanwhile. No spawn is ever waited for under a lock, since one on a
//! slow disk takes its time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use super::source::{Source, source};
use crate::kernel::number;
use crate::shared;
use crate::sync::{Mutex, MutexGuard};

/// How long, and how often, to look whether the spawns are done that may have made a zombie. Most
/// take less than a millisecond; for the others the zombie waits for the next sweep.
const SPAWN_LOOKS: u32 = if cfg!(loom) { 1 } else { 20 };
const SPAWN_PAUSE: Duration = Duration::from_millis(1);

/// A child of ours, as it is known here.
pub(crate) trait Registered: Send + Sync {
    /// Its number.
    fn pid(&self) -> libc::pid_t;
    /// Fetches its status and keeps it; `false` if it cannot be had.
    fn learn(&self) -> bool;
}

/// The thread that waits for zombies, where there is one.
pub(super) static WAITER: OnceLock<Thread> = OnceLock::new();

#[derive(Default)]
struct Known {
    /// Our children whose status is not known yet.
    ours: HashMap<libc::pid_t, Weak<dyn Registered>>,
    /// The spawns that are under way, numbered in the order in which they began.
    spawning: BTreeSet<u64>,
    begun: u64,
    /// Whose statuses were fetched since the sweep last looked for a zombie.
    fetched: HashSet<libc::pid_t>,
    /// A spawn has failed since then, and reaped a child of which nothing is known.
    failed: bool,
}

shared! { static KNOWN: Mutex<Known> = Mutex::new(Known::default()); }
shared! { static SWEEPING: Mutex<()> = Mutex::new(()); }

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `spawn` so that the new child is not taken for a stranger.
pub(crate) fn while_registering<C: Registered + 'static, E>(
    spawn: impl FnOnce() -> Result<Arc<C>, E>,
) -> Result<Arc<C>, E> {
    if source() == Source::Pidfd {
        return spawn();
    }
    let number = {
        let mut known = known();
        known.begun += 1;
        let number = known.begun;
        known.spawning.insert(number);
        number
    };
    let spawned = spawn();
    let mut known = known();
    known.spawning.remove(&number);
    known.failed |= spawned.is_err();
    let child = spawned?;
    let registered: Weak<dyn Registered> = Arc::downgrade(&child) as _;
    known.ours.insert(child.pid(), registered);
    drop(known);
    if let Some(waiter) = WAITER.get() {
        waiter.unpark();
    }
    Ok(child)
}

/// Buries every zombie that is nobody's, and has the statuses of ours fetched.
pub fn sweep() {
    let _one = SWEEPING.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        {
            let mut known = known();
            known.fetched.clear();
            known.failed = false;
        }
        match number::some_zombie() {
            Ok(Some(pid)) if look_at(pid) || bury(pid) => {}
            _ => break,
        }
    }
    // Other code may have fetched the statuses of some. Nothing announces that, so we look.
    if source() == Source::Portable {
        look_at_all();
    }
}

/// Has the status of a zombie fetched, or buries it when nobody asks for it any more; `false` when it
/// is still there, being none of ours.
pub(super) fn look_at(pid: libc::pid_t) -> bool {
    let mut known = known();
    match known.ours.get(&pid).map(Weak::upgrade) {
        Some(Some(child)) => {
            drop(known);
            child.learn()
        }
        Some(None) => {
            known.ours.remove(&pid);
            let _ = number::reap(pid);
            true
        }
        None => false,
    }
}

/// Buries the zombie of a stranger, unless it may be one of ours. `false`: it is still there.
fn bury(pid: libc::pid_t) -> bool {
    let begun = known().begun;
    for look in 0..SPAWN_LOOKS {
        if look > 0 {
            std::thread::sleep(SPAWN_PAUSE);
        }
        let known = known();
        if known.fetched.contains(&pid) {
            // Gone, and the number may be that of a new child which is not entered yet.
            return true;
        }
        if known.spawning.first().is_some_and(|first| *first <= begun) {
            continue;
        }
        if known.failed || known.ours.contains_key(&pid) {
            return false;
        }
        let _ = number::reap(pid);
        return true;
    }
    false
}

/// Looks at each of ours; how many have no status yet.
pub(super) fn look_at_all() -> usize {
    let all: Vec<Arc<dyn Registered>> = {
        let known = known();
        known.ours.values().filter_map(Weak::upgrade).collect()
    };
    let running = |child: &&Arc<dyn Registered>| !child.learn();
    all.iter().filter(running).count()
}

/// Forgets a child whose status is known. Its number is free since it was reaped, so the entry
/// may be that of a new child already, which stays.
pub(crate) fn reaped(child: &impl Registered) {
    if source() == Source::Pidfd {
        return;
    }
    let mut known = known();
    let entered = known.ours.get(&child.pid());
    if entered.is_some_and(|entered| std::ptr::addr_eq(entered.as_ptr(), child)) {
        known.ours.remove(&child.pid());
        known.fetched.insert(child.pid());
    }
}
