//! The VM's side of the guard: one helper program that outlives the VM and ends the process
//! groups of its commands when the VM is killed. (The commands themselves die with the VM anyway;
//! what they started would not.)
//!
//! Every command reports itself between clone and exec, by sending a pidfd of itself, so that
//! there is no moment at which it runs unguarded, and no number that could be reused. A report
//! must never harm the command: a dead guard (EPIPE) makes no SIGPIPE, a busy one (EAGAIN) does
//! not stop the spawn; then the parent, which can wait, reports.
//!
//! # Safety
//! Unsafe code here builds the messages of `sendmsg`, whose buffers live as long as the call.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::errno::{Errno, check};
use crate::kernel;
use crate::signal::Signal;
use crate::status::Status;

/// How long a report may wait for a guard that does not take it. It drains its socket twenty
/// times a second.
const REPORT_PATIENCE: Duration = Duration::from_secs(1);
const REPORT_PAUSE: Duration = Duration::from_millis(5);

static GUARD: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);

/// Makes the socket for a new guard: ours is used for reports from now on, the guard gets the
/// one that is returned.
pub fn connect() -> Result<OwnedFd, Errno> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let theirs = crate::pipe::above_standard(theirs)?;
    let ours = Arc::new(crate::pipe::above_standard(ours)?);
    *GUARD.lock().unwrap_or_else(PoisonError::into_inner) = Some(ours);
    Ok(theirs)
}

/// The guard is gone, and is not replaced for now.
pub fn disconnect() {
    *GUARD.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Where to report, if there is a guard.
pub(crate) fn socket() -> Option<Arc<OwnedFd>> {
    GUARD.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Room for the control message that carries one descriptor.
// SAFETY: CMSG_SPACE computes a number.
const CONTROL_SIZE: usize = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;

/// A buffer for it, aligned as its header wants to be.
#[repr(align(8))]
struct Control([u8; CONTROL_SIZE]);

/// Reports the process of `pidfd` without waiting. Makes one system call and allocates nothing,
/// so that the cloned child can call it.
pub(crate) fn report(socket: RawFd, pidfd: RawFd) -> Result<(), Errno> {
    let mut byte = 0u8;
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = Control([0; CONTROL_SIZE]);
    // SAFETY: all zeroes is a valid msghdr; its pointers are to the locals above, which outlive
    // the call; the control buffer has room for the one header and descriptor written to it.
    let sent = unsafe {
        let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_SIZE as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast::<RawFd>(), pidfd);
        libc::sendmsg(
            socket,
            &raw const message,
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        )
    };
    check(sent).map(drop)
}

/// Whether a report is done with: it was taken, or there is no guard. One that comes back is told
/// of all living commands. Anything else is want of room, in the socket or in the kernel.
pub(crate) fn is_settled(report: Result<(), Errno>) -> bool {
    matches!(report, Ok(()) | Err(Errno::EPIPE))
}

/// Reports again from the parent, which can wait for room.
pub fn report_patiently(pidfd: &OwnedFd) {
    let Some(socket) = socket() else { return };
    let deadline = Instant::now() + REPORT_PATIENCE;
    while !is_settled(report(socket.as_raw_fd(), pidfd.as_raw_fd())) && Instant::now() < deadline {
        std::thread::sleep(REPORT_PAUSE);
    }
}

// What the guard itself needs.

/// The process `pid` as a pidfd, if it is the caller's parent and alive.
pub fn parent(pid: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: getppid cannot fail; pidfd_open makes a new descriptor. A parent that is still the
    // parent afterwards was alive, so its number had not been reused.
    unsafe {
        let pidfd = open_pidfd(pid).ok()?;
        let pidfd = OwnedFd::from_raw_fd(pidfd);
        (libc::getppid() == pid).then_some(pidfd)
    }
}

/// How a process ended, where the kernel tells those who are not its parent.
pub fn status(pidfd: &OwnedFd) -> Option<Status> {
    kernel::kept_status(pidfd)
}

/// Kills the process group that the process of `pidfd` leads, or led. Needs Linux 6.9.
pub fn kill_group(pidfd: &OwnedFd) {
    let _ = kernel::signal_group(pidfd, Signal::KILL);
}

/// A pidfd for a number; for callers who know that it cannot have been reused.
pub(crate) fn open_pidfd(pid: libc::pid_t) -> Result<RawFd, Errno> {
    // SAFETY: it makes a new descriptor, close-on-exec, and touches no memory.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    Ok(fd as RawFd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::io::IoSliceMut;

    #[test]
    fn a_report_carries_the_descriptor_and_a_dead_guard_is_no_signal() {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        report(ours.as_raw_fd(), theirs.as_raw_fd()).unwrap();
        let mut data = [0; 8];
        let mut slices = [IoSliceMut::new(&mut data)];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let message = recvmsg::<()>(
            theirs.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        let received: Vec<_> = message.cmsgs().unwrap().collect();
        assert!(matches!(&received[..], [ControlMessageOwned::ScmRights(fds)] if fds.len() == 1));
        if let ControlMessageOwned::ScmRights(fds) = &received[0] {
            nix::unistd::close(fds[0]).unwrap();
        }
        drop(theirs);
        assert_eq!(
            report(ours.as_raw_fd(), ours.as_raw_fd()),
            Err(Errno::EPIPE)
        );
    }
}
