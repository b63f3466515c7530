//! Zombies, where the kernel does not reap them: those of our own children and foreign ones
//! (orphans, when the VM is PID 1 of a container) are in one queue.
//!
//! A zombie that is found is looked up here. If it is unknown, it may belong to a child that was
//! made a moment ago and is not registered yet. So it is foreign only if it is still unknown when
//! all spawns that were under way when it was found are done. Later spawns cannot have made it,
//! because its pid was already taken, unless it was reaped meanwhile. No lock is held while waiting
//! for a spawn, since a spawn from a slow disk takes long.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use super::source::{Source, source};
use crate::kernel::number;
use crate::shared;
use crate::sync::{Mutex, MutexGuard};

/// How often, and at which interval, to check whether the spawns that may have made a zombie are
/// done. Most take less than a millisecond; for the others the zombie waits for the next sweep.
const SPAWN_LOOKS: u32 = if cfg!(loom) { 1 } else { 20 };
const SPAWN_PAUSE: Duration = Duration::from_millis(1);

/// A child of ours, as it is registered here.
pub(crate) trait Registered: Send + Sync {
    /// Its pid.
    fn pid(&self) -> libc::pid_t;
    /// Fetches its status and keeps it; `false` if it is not available.
    fn learn(&self) -> bool;
}

/// The thread that waits for zombies, where there is one.
pub(super) static WAITER: OnceLock<Thread> = OnceLock::new();

#[derive(Default)]
struct Known {
    /// Our children whose status is not known yet.
    ours: HashMap<libc::pid_t, Weak<dyn Registered>>,
    /// The spawns under way, numbered in the order in which they began.
    spawning: BTreeSet<u64>,
    begun: u64,
    /// The children whose statuses were fetched since the sweep last looked for a zombie.
    fetched: HashSet<libc::pid_t>,
    /// Since then a spawn has failed and reaped a child that was never registered.
    failed: bool,
}

shared! { static KNOWN: Mutex<Known> = Mutex::new(Known::default()); }
shared! { static SWEEPING: Mutex<()> = Mutex::new(()); }

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `spawn` so that the new child is not mistaken for a foreign one.
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

/// Reaps every foreign zombie, and fetches the statuses of our own.
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
    // The statuses of some may have been fetched elsewhere. Nothing announces that, so look at all.
    if source() == Source::Portable {
        look_at_all();
    }
}

/// Fetches the status of a zombie of ours, or reaps it if nobody asks for its status any more.
/// Returns `false` if the zombie is still there, usually because it is not ours.
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

/// Reaps a foreign zombie, unless it may be one of ours. Returns `false` if it is still there.
fn bury(pid: libc::pid_t) -> bool {
    let begun = known().begun;
    for look in 0..SPAWN_LOOKS {
        if look > 0 {
            std::thread::sleep(SPAWN_PAUSE);
        }
        let known = known();
        if known.fetched.contains(&pid) {
            // It is gone, and its pid may belong to a new child that is not registered yet.
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

/// Looks at each of our children. Returns how many have no status yet.
pub(super) fn look_at_all() -> usize {
    let all: Vec<Arc<dyn Registered>> = {
        let known = known();
        known.ours.values().filter_map(Weak::upgrade).collect()
    };
    let running = |child: &&Arc<dyn Registered>| !child.learn();
    all.iter().filter(running).count()
}

/// Forgets a child whose status is known. Its pid has been free since it was reaped, so the entry
/// may already belong to a new child; then it stays.
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
