//! Children by their pidfds, which name a process for as long as they are open.
//!
//! # Safety
//! Unsafe code here passes pidfds that their borrowers keep open, and structures that the kernel
//! fills.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::errno::{Errno, check, retry};
use crate::signal::Signal;
use crate::status::Status;

/// Linux 6.9 and later: `pidfd_send_signal` to the whole process group.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// Fetches the status of a child that is a zombie; `None` while it runs.
pub(crate) fn reap(pidfd: &OwnedFd) -> Result<Option<Status>, Errno> {
    wait(pidfd, libc::WEXITED | libc::WNOHANG)
}

/// Whether a child is a zombie, and leaves it one; `ECHILD` when it has been reaped.
pub(crate) fn is_zombie(pidfd: &OwnedFd) -> Result<bool, Errno> {
    let found = wait(pidfd, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)?;
    Ok(found.is_some())
}

/// Waits for a child that is exiting, so that not even a zombie is left. When the kernel reaps by
/// itself the answer is `ECHILD`, which is as good.
#[cfg(not(by_poll))]
pub(crate) fn bury(pidfd: &OwnedFd) -> Result<(), Errno> {
    wait(pidfd, libc::WEXITED).map(drop)
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
/// before the status is there: `None` then.
pub(crate) fn kept_status(pidfd: &OwnedFd) -> Option<Status> {
    ask_status(pidfd).ok().flatten()
}

/// The same, or why the kernel does not answer. Only the mask says whether the status is there; the
/// status itself may be 0.
pub(crate) fn ask_status(pidfd: &OwnedFd) -> Result<Option<Status>, Errno> {
    let mut info = MaybeUninit::<libc::pidfd_info>::zeroed();
    // SAFETY: all zeroes is a valid pidfd_info; the mask asks for the exit code alone; the
    // request number holds the size of the structure, so the kernel writes no further.
    let info = unsafe {
        (*info.as_mut_ptr()).mask = libc::PIDFD_INFO_EXIT.into();
        check(libc::ioctl(
            pidfd.as_raw_fd(),
            libc::PIDFD_GET_INFO as _,
            info.as_mut_ptr(),
        ))?;
        info.assume_init()
    };
    let is_there = info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
    Ok(is_there.then(|| Status::from_wait(info.exit_code)))
}

/// Sends a signal to the process.
pub(crate) fn signal(pidfd: &OwnedFd, signal: Signal) -> Result<(), Errno> {
    send(pidfd.as_raw_fd(), signal, 0)
}

/// The same through a number that the caller knows to be that of an open pidfd.
#[cfg(not(by_poll))]
pub(crate) fn signal_raw(pidfd: RawFd, signal: Signal) -> Result<(), Errno> {
    send(pidfd, signal, 0)
}

/// Sends a signal to the process group that the process leads, or led.
pub(crate) fn signal_group(pidfd: &OwnedFd, signal: Signal) -> Result<(), Errno> {
    send(pidfd.as_raw_fd(), signal, PIDFD_SIGNAL_PROCESS_GROUP)
}

fn send(pidfd: RawFd, signal: Signal, flags: libc::c_uint) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: it has no memory effects; without a siginfo the kernel makes its own.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd,
            signal.number(),
            none,
            flags,
        )
    };
    check(sent).map(drop)
}

/// A pidfd for a process id. For callers that know that the id cannot have been reused. Makes one
/// system call and allocates nothing, so that the cloned child can call it.
pub(crate) fn open(pid: libc::pid_t) -> Result<OwnedFd, Errno> {
    // SAFETY: it makes a new descriptor, close-on-exec, and touches no memory; on success it is
    // open and nobody else's.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as libc::c_int))
    }
}
