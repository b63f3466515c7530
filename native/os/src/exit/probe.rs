//! Finds out, with a child that exits 42, what this kernel and this sandbox allow with pidfds.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::source::Source;
use crate::errno::Errno;
use crate::kernel::clone::clone_and_exit;
use crate::kernel::{number, pidfd};
use crate::signal::Signal;
use crate::status::Status;

/// How long the pidfd may take to return the status after the child has ended (measured: up to 0.7
/// ms).
const PATIENCE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_micros(200);

const CODE: u8 = 42;

/// Fails if the system is short of resources at the moment, which says nothing about what it can
/// do.
pub(super) fn probe() -> Result<Source, Errno> {
    let (pid, child) = match clone_and_exit(CODE) {
        Ok(cloned) => cloned,
        Err(errno) if is_refusal(errno) => return Ok(Source::Portable),
        Err(errno) => return Err(errno),
    };
    let Some(child) = child else {
        // Before Linux 5.2 the flag that asks for a pidfd is ignored.
        number::bury(pid);
        return Ok(Source::Portable);
    };
    let found = ask(&child);
    if !matches!(found, Ok(Source::Pidfd | Source::Wait)) {
        number::bury(pid);
    }
    found
}

fn ask(child: &OwnedFd) -> Result<Source, Errno> {
    // It does not matter here whether the child has already ended.
    let signal = pidfd::signal(child, Signal::NONE);
    let signal_group = pidfd::signal_group(child, Signal::NONE);
    let waited = pidfd::bury(child);
    if !is_possible(signal, Errno::ESRCH)? || !is_possible(waited, Errno::ECHILD)? {
        return Ok(Source::Portable);
    }
    // Without group signals by pidfd, a group that outlives its leader can only be reached by
    // number, and only while the leader is a zombie. So children must become zombies.
    if is_possible(signal_group, Errno::ESRCH)? && tells_status(child)? {
        Ok(Source::Pidfd)
    } else {
        Ok(Source::Wait)
    }
}

/// The errors by which old kernels and strict sandboxes say that there is no such call.
fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::EINVAL | Errno::ENOSYS | Errno::EPERM)
}

/// Whether a call works. If it answers that the child is `gone`, it works.
fn is_possible(answer: Result<(), Errno>, gone: Errno) -> Result<bool, Errno> {
    match answer {
        Ok(()) => Ok(true),
        Err(errno) if errno == gone => Ok(true),
        Err(errno) if is_refusal(errno) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn tells_status(child: &OwnedFd) -> Result<bool, Errno> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pidfd::ask_status(child) {
            Ok(Some(status)) => return Ok(status == Status::Exited(CODE)),
            // The status may still arrive. Kernels that do not keep statuses return ESRCH.
            Ok(None) | Err(Errno::ESRCH) => {}
            // The descriptor does not support this request.
            Err(Errno::ENOTTY) => return Ok(false),
            Err(errno) if is_refusal(errno) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
}
