//! What this kernel, in this sandbox, lets us do with pidfds: tried on a child that exits 42.

use std::time::{Duration, Instant};

use super::Source;
use crate::errno::Errno;
use crate::kernel::{number, pidfd};
use crate::signal::Signal;
use crate::spawn::linux::clone_and_exit;
use crate::status::Status;

/// How long after the end of the child its pidfd may take to tell the status (measured: up to
/// 0.7 ms).
const PATIENCE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_micros(200);

const CODE: u8 = 42;

pub(super) fn probe() -> Source {
    let Ok((pid, child)) = clone_and_exit(CODE) else {
        return Source::Portable;
    };
    let Some(child) = child else {
        // Before Linux 5.2 the flag that asks for a pidfd is ignored.
        number::bury(pid);
        return Source::Portable;
    };
    // That it has ended is no matter here: ESRCH.
    let signal = pidfd::signal(&child, Signal::NONE);
    let signal_group = pidfd::signal_group(&child, Signal::NONE);
    let is_possible = |sent| matches!(sent, Ok(()) | Err(Errno::ESRCH));
    let waited = pidfd::bury(&child);
    if !is_possible(signal) || !matches!(waited, Ok(()) | Err(Errno::ECHILD)) {
        number::bury(pid);
        return Source::Portable;
    }
    // A group that outlives its leader, and can be reached by number only while that is a zombie,
    // asks for zombies.
    if is_possible(signal_group) && tells_status(&child) {
        Source::Pidfd
    } else {
        Source::Wait
    }
}

fn tells_status(child: &std::os::fd::OwnedFd) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pidfd::kept_status(child) {
            Some(status) => return status == Status::Exited(CODE),
            None if Instant::now() >= deadline => return false,
            None => std::thread::sleep(PAUSE),
        }
    }
}
