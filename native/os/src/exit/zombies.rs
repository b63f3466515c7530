//! Zombies, where the kernel leaves them to us: those of our own children and those of strangers
//! (orphans, when the VM is PID 1 of a container) stand in one queue.
//!
//! Whoever finds a zombie asks here whose it is. A spawn holds [`SPAWNING`] from before the child
//! is made until it is entered, or a child that nobody knows yet could be taken for a stranger.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError, Weak};

#[cfg(target_os = "linux")]
use super::waiter;
use super::{Source, source};
use crate::child::Child;
use crate::kernel::number;
use crate::shared;
use crate::sync::{Mutex, MutexGuard, RwLock};

type Ours = HashMap<libc::pid_t, Weak<Child>>;

shared! { static SPAWNING: RwLock<()> = RwLock::new(()); }
shared! { static OURS: Mutex<Ours> = Mutex::new(HashMap::new()); }

fn ours() -> MutexGuard<'static, Ours> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `spawn` so that the new child is not taken for a stranger.
pub(crate) fn while_registering<E>(
    spawn: impl FnOnce() -> Result<Arc<Child>, E>,
) -> Result<Arc<Child>, E> {
    if source() == Source::Pidfd {
        return spawn();
    }
    let _spawning = SPAWNING.read().unwrap_or_else(PoisonError::into_inner);
    let child = spawn()?;
    ours().insert(child.pid(), Arc::downgrade(&child));
    #[cfg(target_os = "linux")]
    waiter::wake();
    Ok(child)
}

/// Whose a zombie is.
enum Whose {
    Ours(Arc<Child>),
    /// Ours, but nobody asks for it any more.
    Forgotten,
    Strangers,
}

fn whose(pid: libc::pid_t) -> Whose {
    match ours().get(&pid).map(Weak::upgrade) {
        Some(Some(child)) => Whose::Ours(child),
        Some(None) => Whose::Forgotten,
        None => Whose::Strangers,
    }
}

/// Buries every zombie that is nobody's, and has the statuses of ours fetched. Blocks while a
/// spawn is under way.
pub fn sweep() {
    let strangers_too = true;
    while let Ok(Some(pid)) = number::some_zombie() {
        if !settle_or_bury(pid, strangers_too) {
            break;
        }
    }
    // Some may be gone because somebody else has fetched their statuses: nothing tells of that
    // but a look.
    if source() == Source::Portable {
        settle_all();
    }
}

/// Has the status of a zombie fetched; `false` when it is still there, being a stranger's.
#[cfg(target_os = "linux")]
pub(super) fn settle(pid: libc::pid_t) -> bool {
    settle_or_bury(pid, false)
}

fn settle_or_bury(pid: libc::pid_t, strangers_too: bool) -> bool {
    let _no_spawn = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
    match whose(pid) {
        Whose::Ours(child) => return child.learn(),
        Whose::Strangers if !strangers_too => return false,
        Whose::Strangers => {}
        Whose::Forgotten => {
            ours().remove(&pid);
        }
    }
    // It may have been reaped since it was found. Then its number is nobody's: a new child would
    // be one of ours, and no spawn is under way.
    let _ = number::reap(pid);
    true
}

/// Looks at each of ours; how many have no status yet.
pub(super) fn settle_all() -> usize {
    let all: Vec<Arc<Child>> = {
        let ours = ours();
        ours.values().filter_map(Weak::upgrade).collect()
    };
    let running = |child: &&Arc<Child>| !child.learn();
    all.iter().filter(running).count()
}

/// Forgets a child whose status is known. Its number is free since it was reaped, so the entry
/// may be that of a new child already, which stays.
pub(crate) fn settled(child: &Child) {
    if source() == Source::Pidfd {
        return;
    }
    if let Entry::Occupied(entry) = ours().entry(child.pid()) {
        if std::ptr::eq(entry.get().as_ptr(), child) {
            entry.remove();
        }
    }
}
