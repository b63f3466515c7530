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
//!
//! # Safety
//! Unsafe code here passes pidfds that their borrowers keep open, and structures that the kernel
//! fills.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::command::{Command, Stdio};
use crate::errno::{Errno, check, retry};
use crate::status::Status;

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
    match wait(pidfd, libc::WEXITED | libc::WNOHANG) {
        Ok(None) => Look::Running,
        Ok(Some(status)) => Look::Ended(status),
        Err(_) if source() == Source::Wait => Look::Gone,
        Err(_) => match pidfd_status(pidfd) {
            Some(status) => Look::Ended(status),
            None => Look::Gone,
        },
    }
}

/// Whether a child has ended, leaving its status where it is.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    !matches!(
        wait(pidfd, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT),
        Ok(None)
    )
}

fn wait(pidfd: &OwnedFd, options: libc::c_int) -> Result<Option<Status>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let id = pidfd.as_raw_fd().unsigned_abs();
    // SAFETY: the descriptor is open; waitid writes into `info` only.
    retry(|| unsafe { libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), options) })?;
    // SAFETY: zeroed, and filled by waitid when a child was found.
    Ok(status_of(&unsafe { info.assume_init() }))
}

/// The status a `siginfo` holds; `None` when waitid found nothing.
fn status_of(info: &libc::siginfo_t) -> Option<Status> {
    // SAFETY: waitid fills the fields of a SIGCHLD siginfo, or leaves them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return None;
    }
    Some(match info.si_code {
        libc::CLD_EXITED => Status::Exited(status as u8),
        code => Status::Signaled {
            signal: status as u8,
            core: code == libc::CLD_DUMPED,
        },
    })
}

/// What the pidfd remembers of a child that the kernel reaped. The pidfd may become readable
/// before the status is there: `None` then, and the mask alone says so, not the number.
pub(crate) fn pidfd_status(pidfd: &OwnedFd) -> Option<Status> {
    let mut info = MaybeUninit::<libc::pidfd_info>::zeroed();
    // SAFETY: all zeroes is a valid pidfd_info; the mask asks for the exit code alone; the
    // request number holds the size of the structure, so the kernel writes no further.
    let info = unsafe {
        (*info.as_mut_ptr()).mask = libc::PIDFD_INFO_EXIT.into();
        check(libc::ioctl(
            pidfd.as_raw_fd(),
            libc::PIDFD_GET_INFO as _,
            info.as_mut_ptr(),
        ))
        .ok()?;
        info.assume_init()
    };
    (info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then(|| Status::from_wait(info.exit_code))
}

// With Source::Wait, zombies of our own children and of strangers (orphans, when the VM is PID 1
// of a container) stand in one queue. The sweep takes them all and keeps the statuses of ours
// for their owners. A spawn holds `SPAWNING` from before the clone until the child is in `OURS`,
// or the sweep could meet a child that nobody knows yet.

static SPAWNING: RwLock<()> = RwLock::new(());
static OURS: Mutex<Option<HashMap<libc::pid_t, Weak<Child>>>> = Mutex::new(None);

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
    ours.get_or_insert_default()
        .insert(child.pid(), Arc::downgrade(&child));
    Ok(child)
}

/// Buries every zombie that is nobody's. Blocks while a spawn is under way.
pub fn sweep() {
    loop {
        let _no_spawn = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: waitid writes into `info` only.
        let found = retry(|| unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) });
        if found.is_err() {
            return;
        }
        // SAFETY: zeroed, and filled by waitid when a zombie was found.
        let pid = unsafe { info.assume_init().si_pid() };
        if pid == 0 {
            return;
        }
        let ours = {
            let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
            ours.as_mut()
                .and_then(|ours| ours.remove(&pid))
                .and_then(|child| child.upgrade())
        };
        match ours {
            Some(child) => drop(child.try_status()),
            None => {
                // SAFETY: as above; the zombie cannot have been replaced, it was not reaped yet
                // and while we hold the lock nobody else here reaps strangers.
                let _ = retry(|| unsafe {
                    libc::waitid(
                        libc::P_PID,
                        pid.unsigned_abs(),
                        info.as_mut_ptr(),
                        libc::WEXITED | libc::WNOHANG,
                    )
                });
            }
        }
    }
}

/// Forgets a child whose status is known. Its number is free since it was reaped, so the entry
/// may be that of a new child already, which stays.
pub(crate) fn settled(child: &Child) {
    if source() == Source::Wait {
        let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Entry::Occupied(entry)) = ours.as_mut().map(|ours| ours.entry(child.pid())) {
            if std::ptr::eq(entry.get().as_ptr(), child) {
                entry.remove();
            }
        }
    }
}
