//! Reports by number: the VM sends the number of a new command, and the guard answers when it
//! watches that process. Until then the VM does not reap the command, so the number is its own.
//!
//! Both messages are the four bytes of the number. One report is under way at a time. As long as it
//! has not been answered, no other is made.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send as send_bytes, socketpair,
};

use super::socket::{REPORT_PATIENCE, connections, socket};
use crate::errno::Errno;
#[cfg(not(target_os = "linux"))]
use crate::kernel::kqueue;
use crate::kernel::number;
#[cfg(target_os = "linux")]
use crate::kernel::pidfd;
use crate::life::child::Child;
use crate::signal::Signal;

/// How long reports may wait in the socket: the VM waits for the answer.
pub const REST: Duration = Duration::ZERO;

/// What a number is sent as.
type Message = [u8; size_of::<libc::pid_t>()];

/// The VM's end and the guard's.
pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = SockFlag::SOCK_CLOEXEC;
    #[cfg(target_vendor = "apple")]
    let flags = SockFlag::empty();
    let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    #[cfg(target_vendor = "apple")]
    {
        crate::pipe::close_on_exec(&pair.0)?;
        crate::pipe::close_on_exec(&pair.1)?;
    }
    Ok(pair)
}

/// A dead guard must not cause SIGPIPE. Where this flag does not exist, the VM and the guard ignore
/// the signal.
fn flags() -> MsgFlags {
    #[cfg(not(target_vendor = "apple"))]
    let no_signal = MsgFlags::MSG_NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    let no_signal = MsgFlags::empty();
    no_signal | MsgFlags::MSG_DONTWAIT
}

fn send(socket: BorrowedFd<'_>, message: &Message) -> nix::Result<()> {
    send_bytes(socket.as_raw_fd(), message, flags()).map(drop)
}

/// The next message; `None` at the end of the socket.
fn receive(socket: BorrowedFd<'_>) -> nix::Result<Option<Message>> {
    let mut message = Message::default();
    let count = recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT)?;
    // Messages are written and read whole: the room in a socket is a multiple of their size.
    Ok((count == message.len()).then_some(message))
}

/// Held while a report is under way. It holds the guard that has not answered the last report, as
/// [`connections`] counts guards.
static UNANSWERED: Mutex<Option<usize>> = Mutex::new(None);

fn unanswered() -> MutexGuard<'static, Option<usize>> {
    UNANSWERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reports a process, and waits until the guard watches it. `false`: it did not do so in time, or
/// it has not answered an earlier report yet.
pub(super) fn report_patiently(child: &Child) -> bool {
    let Some(socket) = socket() else { return true };
    let Some(_unreaped) = child.hold() else {
        return true;
    };
    let mut unanswered = unanswered();
    if *unanswered == Some(connections()) {
        return false;
    }
    *unanswered = None;
    let message = child.pid().to_ne_bytes();
    let deadline = Instant::now() + REPORT_PATIENCE;
    match send(socket.as_fd(), &message) {
        Ok(()) => {}
        // There is no room, or no guard any more.
        Err(errno) => return errno != nix::errno::Errno::EAGAIN,
    }
    loop {
        match receive(socket.as_fd()) {
            Ok(Some(answer)) if answer != message => {}
            Err(nix::errno::Errno::EAGAIN) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    *unanswered = Some(connections());
                    return false;
                }
                let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                // Interrupted or not, look for the answer.
                let _ = poll(&mut fds, left);
            }
            Err(nix::errno::Errno::EINTR) => {}
            // It watches, or is dead.
            Ok(_) | Err(_) => return true,
        }
    }
}

/// The same, once the guard [`is_awake`].
pub(super) fn report_now(child: &Child) -> bool {
    report_patiently(child)
}

/// Whether the guard has answered the last report, in time or late.
pub(super) fn is_awake() -> bool {
    let Some(socket) = socket() else { return true };
    let mut unanswered = unanswered();
    if *unanswered == Some(connections()) {
        match receive(socket.as_fd()) {
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return false,
            // It has, or is dead.
            Ok(_) | Err(_) => *unanswered = None,
        }
    }
    true
}

/// A process, as the guard knows it. Its descriptor becomes readable when it has ended.
pub struct Process {
    pid: libc::pid_t,
    end: OwnedFd,
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl Process {
    /// For callers that know that the process was not reaped before the call.
    fn open(pid: libc::pid_t) -> Result<Process, Errno> {
        #[cfg(target_os = "linux")]
        let end = pidfd::open(pid)?;
        #[cfg(not(target_os = "linux"))]
        let end = kqueue::Queue::new()?.until_end_of(pid)?;
        Ok(Process { pid, end })
    }

    /// The process `pid`, if it is the caller's parent and alive.
    pub fn parent(pid: libc::pid_t) -> Option<Process> {
        let process = Process::open(pid).ok()?;
        // A parent that is still the parent was alive, so its number had not been reused.
        (nix::unistd::getppid().as_raw() == pid).then_some(process)
    }

    /// Whether a process that has ended may have been killed, by the kernel together with the VM:
    /// kernels that do so have pidfds.
    pub fn may_have_been_killed(&self) -> bool {
        false
    }

    /// Kills the process group that it leads, unless it has ended: then its number may be somebody
    /// else's.
    pub fn kill_group(&self) {
        let mut fds = [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO) == Ok(0) {
            let _ = number::signal_group(self.pid, Signal::KILL);
        }
    }
}

/// The next report; `None` at the end of the socket. The VM is told that it was taken.
pub fn take_report(socket: BorrowedFd<'_>) -> nix::Result<Option<Process>> {
    loop {
        let Some(message) = receive(socket)? else {
            return Ok(None);
        };
        let process = Process::open(libc::pid_t::from_ne_bytes(message));
        let _ = send(socket, &message);
        if let Ok(process) = process {
            return Ok(Some(process));
        }
        // There is no room for its descriptor. This command stays unguarded, but the others must
        // not.
    }
}
