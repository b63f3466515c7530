//! The VM's end of the socket to the guard.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a report may wait for a guard that does not take it.
pub(super) const REPORT_PATIENCE: Duration = Duration::from_secs(1);

/// The guard that reports go to.
static GUARD: Mutex<Guard> = Mutex::new(Guard {
    turn: 0,
    socket: None,
});
static TURNS: AtomicU64 = AtomicU64::new(0);
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

struct Guard {
    turn: u64,
    socket: Option<Arc<OwnedFd>>,
}

fn guard() -> MutexGuard<'static, Guard> {
    GUARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number larger than all before.
pub(super) fn next_turn() -> u64 {
    TURNS.fetch_add(1, Ordering::Relaxed) + 1
}

/// How many guards there have been. If the number has grown since before a spawn, the command may
/// not have been reported to the last guard.
pub fn connections() -> usize {
    CONNECTIONS.load(Ordering::Acquire)
}

/// There is a new guard, unless one with a later turn was there first.
pub(super) fn connect(turn: u64, socket: Arc<OwnedFd>) {
    {
        let mut guard = guard();
        if turn < guard.turn {
            return;
        }
        *guard = Guard {
            turn,
            socket: Some(socket),
        };
    }
    // After that, so that a thread that sees the new count finds the new socket.
    CONNECTIONS.fetch_add(1, Ordering::AcqRel);
}

/// Disconnects the guard, unless there is one with a later turn. Returns whether there is none now.
pub(super) fn disconnect(turn: u64) -> bool {
    let mut guard = guard();
    let is_latest = turn >= guard.turn;
    if is_latest {
        *guard = Guard { turn, socket: None };
    }
    is_latest
}

/// Where to report, if there is a guard.
pub(crate) fn socket() -> Option<Arc<OwnedFd>> {
    guard().socket.clone()
}
