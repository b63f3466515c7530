//! What the kernel is asked about children, and told: one function for each question, without
//! state and without policy.
//!
//! The model replaces this file (see `model`).
//!
//! # Safety
//! Unsafe code here passes pidfds that their borrowers keep open, and structures that the kernel
//! fills.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::errno::{Errno, check, retry};
use crate::signal::Signal;
use crate::status::Status;

/// Linux 6.9 and later: `pidfd_send_signal` to the whole process group.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// Whether a child has ended, leaving its status where it is.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    !matches!(is_zombie(pidfd), Ok(false))
}

/// Whether a child has ended and keeps its number until it is reaped; `ECHILD` when it has been.
pub(crate) fn is_zombie(pidfd: &OwnedFd) -> Result<bool, Errno> {
    let found = wait(pidfd, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)?;
    Ok(found.is_some())
}

/// Takes the status of a child that has ended, which reaps it; `None` while it runs.
pub(crate) fn take_status(pidfd: &OwnedFd) -> Result<Option<Status>, Errno> {
    wait(pidfd, libc::WEXITED | libc::WNOHANG)
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
pub(crate) fn kept_status(pidfd: &OwnedFd) -> Option<Status> {
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

/// A child of this process, whoever's, that has ended and is not reaped yet.
pub(crate) fn zombie() -> Option<libc::pid_t> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: waitid writes into `info` only.
    retry(|| unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) }).ok()?;
    // SAFETY: zeroed, and filled by waitid when a zombie was found.
    let pid = unsafe { info.assume_init().si_pid() };
    (pid != 0).then_some(pid)
}

/// Reaps a zombie, and forgets how it ended.
pub(crate) fn bury(pid: libc::pid_t) {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG;
    // SAFETY: waitid writes into `info` only.
    let _ = retry(|| unsafe {
        libc::waitid(libc::P_PID, pid.unsigned_abs(), info.as_mut_ptr(), options)
    });
}

/// Signals a child; `ESRCH` once it is reaped.
pub(crate) fn signal(pidfd: &OwnedFd, signal: Signal) -> Result<(), Errno> {
    send(pidfd, signal, 0)
}

/// Signals the process group that a child leads, or led; `ESRCH` when nobody is left in it,
/// `EINVAL` where the kernel cannot.
pub(crate) fn signal_group(pidfd: &OwnedFd, signal: Signal) -> Result<(), Errno> {
    send(pidfd, signal, PIDFD_SIGNAL_PROCESS_GROUP)
}

fn send(pidfd: &OwnedFd, signal: Signal, flags: libc::c_uint) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; without a siginfo the kernel makes its own.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal.number(),
            none,
            flags,
        )
    };
    check(sent).map(drop)
}

/// Signals the process group of this number: whosever it is, so its leader must not be reaped.
pub(crate) fn signal_group_number(leader: libc::pid_t, signal: Signal) -> Result<(), Errno> {
    // SAFETY: kill has no memory effects.
    check(unsafe { libc::kill(-leader, signal.number()) }).map(drop)
}
