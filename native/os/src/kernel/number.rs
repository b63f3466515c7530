//! Children by their process ids, which are theirs until they are reaped. For callers that know
//! that this has not happened.
//!
//! # Safety
//! Unsafe code here makes system calls that take numbers, and structures that the kernel fills.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use crate::errno::{Errno, check, retry};
use crate::signal::Signal;
use crate::status::Status;

/// Fetches the status of a child that is a zombie; `None` while it runs.
pub(crate) fn reap(pid: libc::pid_t) -> Result<Option<Status>, Errno> {
    wait(pid, libc::WNOHANG)
}

/// Waits for a child that is exiting, so that not even a zombie is left.
pub(crate) fn bury(pid: libc::pid_t) {
    let _ = wait(pid, 0);
}

fn wait(pid: libc::pid_t, options: libc::c_int) -> Result<Option<Status>, Errno> {
    let mut status = 0;
    // SAFETY: waitpid writes into `status` only.
    let found = retry(|| unsafe { libc::waitpid(pid, &raw mut status, options) })?;
    Ok((found != 0).then(|| Status::from_wait(status)))
}

/// Whether a child is a zombie, and leaves it one; `ECHILD` when it has been reaped.
pub(crate) fn is_zombie(pid: libc::pid_t) -> Result<bool, Errno> {
    Ok(zombie(libc::P_PID, pid, libc::WNOHANG)?.is_some())
}

/// Some child that is a zombie, if there is one; `ECHILD` without any children.
pub(crate) fn some_zombie() -> Result<Option<libc::pid_t>, Errno> {
    zombie(libc::P_ALL, 0, libc::WNOHANG)
}

/// The same, but waits until there is one.
#[cfg(target_os = "linux")]
pub(crate) fn next_zombie() -> Result<Option<libc::pid_t>, Errno> {
    zombie(libc::P_ALL, 0, 0)
}

fn zombie(
    kind: libc::idtype_t,
    pid: libc::pid_t,
    options: libc::c_int,
) -> Result<Option<libc::pid_t>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = options | libc::WEXITED | libc::WNOWAIT;
    // SAFETY: waitid writes into `info` only.
    retry(|| unsafe { libc::waitid(kind, pid as libc::id_t, info.as_mut_ptr(), options) })?;
    // SAFETY: zeroed, and filled by waitid when a zombie was found.
    let found = unsafe { info.assume_init().si_pid() };
    Ok((found != 0).then_some(found))
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: libc::pid_t, signal: Signal) -> Result<(), Errno> {
    // SAFETY: kill has no memory effects.
    check(unsafe { libc::kill(pid, signal.number()) }).map(drop)
}

/// The number of the process group that a process belongs to.
pub(crate) fn group_of(pid: libc::pid_t) -> Result<libc::pid_t, Errno> {
    // SAFETY: getpgid has no memory effects.
    check(unsafe { libc::getpgid(pid) })
}

/// Sends a signal to the process group that a process leads.
pub(crate) fn signal_group(pid: libc::pid_t, signal: Signal) -> Result<(), Errno> {
    self::signal(-pid, signal)
}
