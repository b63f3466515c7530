//! The VM's end of the socket to the guard.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a report may wait for a guard that does not take it.
pub(super) const REPORT_PATIENCE: Duration = Duration::from_secs(1);

static GUARD: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// How many guards there have been. When that has grown since before a spawn, the command may not
/// have been reported to the last of them.
pub fn connections() -> usize {
    CONNECTIONS.load(Ordering::Acquire)
}

/// There is a new guard.
pub(super) fn connect(socket: Arc<OwnedFd>) {
    *GUARD.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    // After that, so that a thread that sees the new count finds the new socket.
    CONNECTIONS.fetch_add(1, Ordering::AcqRel);
}

/// There is none any more.
pub(super) fn disconnect() {
    *GUARD.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Where to report, if there is a guard.
pub(crate) fn socket() -> Option<Arc<OwnedFd>> {
    GUARD.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
