//! Reports by pidfd. A command sends its own between clone and exec. So it never runs unguarded,
//! and there is no number that could be reused. A report must never harm the command: a dead guard
//! (EPIPE) causes no SIGPIPE, and a busy one (EAGAIN) does not stop the spawn. Then the parent
//! reports, because it can wait.
//!
//! # Safety
//! Unsafe code here builds the messages of `sendmsg`, whose buffers live as long as the call, and
//! takes the ownership of descriptors that the kernel has just given.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};

use super::socket::{REPORT_PATIENCE, socket};
use crate::errno::{Errno, check};
use crate::kernel::pidfd;
use crate::life::child::Child;
use crate::signal::Signal;
use crate::status::Status;

/// How long reports may wait in the socket. A program that starts many commands wakes the guard
/// twenty times a second, and not for each of them.
pub const REST: Duration = Duration::from_millis(50);

const REPORT_PAUSE: Duration = Duration::from_millis(5);

/// The VM's end and the guard's.
pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let close_on_exec = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        close_on_exec,
    )?)
}

/// Room for the control message that carries one descriptor.
// SAFETY: CMSG_SPACE computes a number.
const CONTROL_SIZE: usize = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;

/// A buffer for it, aligned as its header wants to be.
#[repr(align(8))]
struct Control([u8; CONTROL_SIZE]);

/// Reports the process of `pidfd` without waiting. Makes one system call and allocates nothing,
/// so that the cloned child can call it.
pub(crate) fn send_report(socket: RawFd, pidfd: RawFd) -> Result<(), Errno> {
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

/// Whether a report is done with: it was taken, or there is no guard. (A guard that comes back gets
/// reports of all living commands.) Any other error means that the socket or the kernel had no room.
pub(crate) fn is_delivered(report: Result<(), Errno>) -> bool {
    matches!(report, Ok(()) | Err(Errno::EPIPE))
}

/// Reports a process from the parent, which can wait for room. `false`: there was none in time.
pub(super) fn report_patiently(child: &Child) -> bool {
    let deadline = Instant::now() + REPORT_PATIENCE;
    while !report_now(child) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(REPORT_PAUSE);
    }
    true
}

/// Reports a process without waiting. `false`: there is no room, in the socket or for a pidfd.
pub(super) fn report_now(child: &Child) -> bool {
    let Some(socket) = socket() else { return true };
    let Some(end) = child.end() else { return true };
    // Where we cannot have a pidfd, the guard cannot either.
    let opened = match end.pidfd() {
        Some(_) => None,
        None => match child.while_unreaped(pidfd::open) {
            Some(Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return false,
            opened => opened.and_then(Result::ok),
        },
    };
    match end.pidfd().or(opened.as_ref()) {
        Some(pidfd) => is_delivered(send_report(socket.as_raw_fd(), pidfd.as_raw_fd())),
        None => true,
    }
}

/// Whether it is worth trying again.
pub(super) fn is_awake() -> bool {
    true
}

/// A process, as the guard knows it. Its descriptor becomes readable when it has ended.
pub struct Process(OwnedFd);

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Process {
    /// The process `pid`, if it is the caller's parent and alive.
    pub fn parent(pid: libc::pid_t) -> Option<Process> {
        let pidfd = pidfd::open(pid).ok()?;
        // A parent that is still the parent was alive, so its number had not been reused.
        (nix::unistd::getppid().as_raw() == pid).then_some(Process(pidfd))
    }

    /// Whether a process that has ended may have been killed, by the kernel together with the VM.
    pub fn may_have_been_killed(&self) -> bool {
        match pidfd::kept_status(&self.0) {
            Some(Status::Signaled { signal, .. }) => signal == libc::SIGKILL as u8,
            Some(_) => false,
            // This kernel does not say, or not yet.
            None => true,
        }
    }

    /// Kills the process group that it leads, or led. Needs Linux 6.9.
    pub fn kill_group(&self) {
        let _ = pidfd::signal_group(&self.0, Signal::KILL);
    }
}

/// The next report; `None` at the end of the socket.
pub fn take_report(socket: BorrowedFd<'_>) -> nix::Result<Option<Process>> {
    loop {
        let mut data = [0; 1];
        let mut slices = [IoSliceMut::new(&mut data)];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let report = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        if report.bytes == 0 {
            return Ok(None);
        }
        for message in report.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = message {
                if let Some(fd) = fds.first() {
                    // SAFETY: the kernel has just given us this descriptor.
                    return Ok(Some(Process(unsafe { OwnedFd::from_raw_fd(*fd) })));
                }
            }
        }
        // There is no room for its descriptor. This command stays unguarded, but the others must
        // not.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_carries_the_descriptor_and_a_dead_guard_is_no_signal() {
        let (ours, theirs) = socket_pair().unwrap();
        send_report(ours.as_raw_fd(), theirs.as_raw_fd()).unwrap();
        let received = take_report(theirs.as_fd()).unwrap().unwrap();
        assert!(received.0.as_raw_fd() > theirs.as_raw_fd());
        assert!(matches!(
            take_report(theirs.as_fd()),
            Err(nix::errno::Errno::EAGAIN)
        ));
        // The guard is dead when nobody has its end any more.
        drop((received, theirs));
        assert_eq!(
            send_report(ours.as_raw_fd(), ours.as_raw_fd()),
            Err(Errno::EPIPE)
        );
    }
}
