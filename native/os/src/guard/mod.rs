//! The guard: one helper program that outlives the VM and ends the process groups of its commands
//! when the VM is killed. This is the VM's side of it, and what the program needs to receive
//! reports.
//!
//! | file | a command is | where |
//! | --- | --- | --- |
//! | `by_pidfd` | a pidfd, sent by the command itself | Linux, where the kernel ends the commands and the guard ends what they started |
//! | `by_number` | its number, sent by the VM | elsewhere; the guard ends both |

#[cfg(not(by_clone))]
mod by_number;
#[cfg(by_clone)]
mod by_pidfd;
mod socket;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

#[cfg(not(by_clone))]
use by_number as protocol;
#[cfg(by_clone)]
use by_pidfd as protocol;

pub use protocol::{Process, REST, take_report};
#[cfg(by_clone)]
pub(crate) use protocol::{is_delivered, send_report};
pub use socket::connections;
pub(crate) use socket::socket;

use crate::errno::Errno;
use crate::life::child::Child;
use crate::life::keeper;
use crate::pipe::above_standard;

/// Whether commands outlive a VM that is killed, unless there is a guard.
pub const IS_NEEDED: bool = cfg!(not(by_clone));

/// How often to check whether a guard that did not take reports takes them again.
const RETRY: Duration = Duration::from_millis(50);

/// The turn of a guard. Two guards may be starting at the same time: one for an owner that was killed,
/// one for the owner that took its place. Reports go to the guard with the later turn, whichever of the
/// two is connected first.
pub struct Turn(u64);

impl Turn {
    /// The next turn.
    pub fn take() -> Turn {
        Turn(socket::next_turn())
    }

    /// Makes the socket for the guard, which gets the end that is returned. Reports go to our end from
    /// now on, unless a later guard has been connected.
    pub fn connect(&self) -> Result<OwnedFd, Errno> {
        let (ours, theirs) = protocol::socket_pair()?;
        let theirs = above_standard(theirs)?;
        let ours = Arc::new(above_standard(ours)?);
        socket::connect(self.0, ours);
        Ok(theirs)
    }

    /// The guard could not be started. A later guard stays connected.
    pub fn disconnect(&self) {
        if socket::disconnect(self.0) {
            backlog().clear();
        }
    }
}

/// The guard is gone, and is not replaced for now.
pub fn disconnect() {
    Turn::take().disconnect();
}

/// Processes that are still to be reported to the guard.
static BACKLOG: Mutex<VecDeque<Weak<Child>>> = Mutex::new(VecDeque::new());
/// The keeper will try again.
static RETRYING: AtomicBool = AtomicBool::new(false);

fn backlog() -> MutexGuard<'static, VecDeque<Weak<Child>>> {
    BACKLOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reports a process. If the guard takes no reports, because it was stopped for instance, the first
/// report waits for a second. The others are made when it takes reports again.
pub fn report(child: &Arc<Child>) {
    if socket().is_none() {
        return;
    }
    let waits = !backlog().is_empty();
    if waits || !protocol::report_patiently(child) {
        put_off(&mut backlog(), Arc::downgrade(child));
        retry_later();
    }
}

/// Adds a process to the backlog. Before the backlog grows, processes that are gone are removed
/// from it. So its size is that of the living, however long the guard takes no reports.
fn put_off(backlog: &mut VecDeque<Weak<Child>>, child: Weak<Child>) {
    if backlog.len() == backlog.capacity() {
        backlog.retain(|child| child.strong_count() > 0);
        // Twice as much room as is needed, or each of the next ones would look through the backlog.
        backlog.reserve(backlog.len() + 1);
    }
    backlog.push_back(child);
}

fn retry_later() {
    if !RETRYING.swap(true, Ordering::AcqRel) {
        let _ = keeper::at(Instant::now() + RETRY, Box::new(retry));
    }
}

fn retry() {
    // Cleared first: a report that is put off from here on sets it again.
    RETRYING.store(false, Ordering::Release);
    if protocol::is_awake() {
        while let Some(child) = next_of_backlog() {
            if !protocol::report_now(&child) {
                backlog().push_front(Arc::downgrade(&child));
                break;
            }
        }
    }
    if !backlog().is_empty() {
        retry_later();
    }
}

/// The next process that is not forgotten by all others.
fn next_of_backlog() -> Option<Arc<Child>> {
    let mut backlog = backlog();
    while let Some(child) = backlog.pop_front() {
        if let Some(child) = child.upgrade() {
            return Some(child);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_does_not_grow_by_processes_that_are_gone() {
        let mut backlog = VecDeque::new();
        for _ in 0..10_000 {
            put_off(&mut backlog, Weak::new());
        }
        assert!(backlog.capacity() < 64);
    }
}
