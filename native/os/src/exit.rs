//! Where the exit status of a child comes from.
//!
//! The Erlang VM ignores SIGCHLD, so its children are reaped by the kernel and `waitid` has
//! nothing to say. There are two ways out:
//!
//! * [`Source::Pidfd`], Linux 6.15 and later: the pidfd keeps the status of a reaped child and
//!   tells it (`PIDFD_GET_INFO`).
//! * [`Source::Wait`], before that: SIGCHLD gets its default disposition back (the VM must be
//!   told to), children stay zombies until [`waitid`](https://man7.org/linux/man-pages/man2/waitid.2.html)
//!   fetches their status, and [`sweep`] buries the zombies that are nobody's.
//!
//! Which one works is found out with a child that exits, once, by [`choose`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::command::{Command, Stdio};
use crate::kernel;
use crate::shared;
use crate::status::Status;
use crate::sync::{Mutex, RwLock};

/// Where statuses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The pidfd, even after the kernel reaped the child.
    Pidfd,
    /// `waitid`; children are zombies until then.
    Wait,
}

/// What one look at a child found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Running,
    /// It is gone, but its status cannot be had: not yet, or not at all.
    Gone,
    Ended(Status),
}

const UNCHOSEN: u8 = 0;
const PIDFD: u8 = 1;
const WAIT: u8 = 2;
static SOURCE: AtomicU8 = AtomicU8::new(UNCHOSEN);

/// How long the probe may run, and how long after its end the pidfd may take to tell its status
/// (measured: up to 0.7 ms).
const PROBE_TIME: Duration = Duration::from_secs(5);
const PROBE_STATUS_TIME: Duration = Duration::from_millis(100);
const PROBE_PAUSE: Duration = Duration::from_micros(200);

/// The source in use. Before [`choose`] it is the pidfd, which falls back on `waitid` first.
pub fn source() -> Source {
    match SOURCE.load(Ordering::Acquire) {
        WAIT => Source::Wait,
        _ => Source::Pidfd,
    }
}

/// Finds out where statuses come from on this kernel and keeps the answer. With `Some(source)`
/// there is nothing to find out. Must first be called with SIGCHLD ignored for the answer to mean
/// anything; the caller of a process that gets [`Source::Wait`] sets SIGCHLD to its default.
pub fn choose(wanted: Option<Source>) -> Source {
    let source = match (wanted, SOURCE.load(Ordering::Acquire)) {
        (Some(source), _) => source,
        (None, UNCHOSEN) => probe(),
        // Found before. With SIGCHLD no longer ignored the answer might now be another one.
        (None, _) => return source(),
    };
    let value = match source {
        Source::Pidfd => PIDFD,
        Source::Wait => WAIT,
    };
    SOURCE.store(value, Ordering::Release);
    source
}

/// Runs a child that exits 42 and looks whether its pidfd tells so.
fn probe() -> Source {
    const CODE: u8 = 42;
    let (Ok(shell), Ok(flag), Ok(script)) = (
        CString::new("/bin/sh"),
        CString::new("-c"),
        CString::new(format!("exit {CODE}")),
    ) else {
        return Source::Wait;
    };
    let command = Command::new(shell, [flag, script], Vec::new(), None).stdio(
        Stdio::Null,
        Stdio::Null,
        Stdio::Null,
    );
    let Some(pidfd) = crate::spawn(&command)
        .ok()
        .and_then(|spawned| spawned.child.pidfd())
    else {
        return Source::Wait;
    };
    let mut deadline = Instant::now() + PROBE_TIME;
    let mut gone = false;
    while Instant::now() < deadline {
        match look(&pidfd) {
            Look::Running => {}
            Look::Ended(Status::Exited(CODE)) => return Source::Pidfd,
            Look::Ended(_) => break,
            Look::Gone if gone => {}
            Look::Gone => {
                gone = true;
                deadline = Instant::now() + PROBE_STATUS_TIME;
            }
        }
        std::thread::sleep(PROBE_PAUSE);
    }
    Source::Wait
}

/// Looks at a child through its pidfd.
pub(crate) fn look(pidfd: &OwnedFd) -> Look {
    match kernel::take_status(pidfd) {
        Ok(None) => Look::Running,
        Ok(Some(status)) => Look::Ended(status),
        Err(_) if source() == Source::Wait => Look::Gone,
        Err(_) => match kernel::kept_status(pidfd) {
            Some(status) => Look::Ended(status),
            None => Look::Gone,
        },
    }
}

// With Source::Wait, zombies of our own children and of strangers (orphans, when the VM is PID 1
// of a container) stand in one queue. The sweep takes them all and keeps the statuses of ours
// for their owners. A spawn holds `SPAWNING` from before the clone until the child is in `OURS`,
// or the sweep could meet a child that nobody knows yet.

shared! { static SPAWNING: RwLock<()> = RwLock::new(()); }
shared! { static OURS: Mutex<HashMap<libc::pid_t, Weak<Child>>> = Mutex::new(HashMap::new()); }

/// Runs `spawn` so that no sweep takes the new child for a stranger.
pub(crate) fn while_registering<E>(
    spawn: impl FnOnce() -> Result<Arc<Child>, E>,
) -> Result<Arc<Child>, E> {
    if source() == Source::Pidfd {
        return spawn();
    }
    let _spawning = SPAWNING.read().unwrap_or_else(PoisonError::into_inner);
    let child = spawn()?;
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    ours.insert(child.pid(), Arc::downgrade(&child));
    Ok(child)
}

/// Buries every zombie that is nobody's. Blocks while a spawn is under way.
pub fn sweep() {
    loop {
        let _no_spawn = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
        let Some(pid) = kernel::zombie() else {
            return;
        };
        let ours = {
            let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
            ours.remove(&pid).and_then(|child| child.upgrade())
        };
        match ours {
            Some(child) => drop(child.try_status()),
            // It cannot have been replaced: it was not reaped yet, and while we hold the lock
            // nobody else here reaps strangers.
            None => kernel::bury(pid),
        }
    }
}

/// Forgets a child whose status is known. Its number is free since it was reaped, so the entry
/// may be that of a new child already, which stays.
pub(crate) fn settled(child: &Child) {
    if source() == Source::Wait {
        let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(entry) = ours.entry(child.pid()) {
            if std::ptr::eq(entry.get().as_ptr(), child) {
                entry.remove();
            }
        }
    }
}
