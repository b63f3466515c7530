//! Many descriptors, any of which may become readable: poll, which every system has. The cost of an
//! event grows with the number of descriptors.
//!
//! # Safety
//! Unsafe code here polls descriptors that are open until [`Poller::remove`] is called, which the
//! thread that waits does itself.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::errno::{Errno, check};

/// A set of descriptors, each with a key.
pub(crate) struct Poller(Mutex<BTreeMap<u64, Watched>>);

struct Watched {
    fd: RawFd,
    once: bool,
}

impl Poller {
    /// Whether a wait must be ended for a new descriptor to be seen.
    pub(crate) const NEEDS_WAKER: bool = true;

    pub(crate) fn new() -> Result<Poller, Errno> {
        Ok(Poller(Mutex::new(BTreeMap::new())))
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<u64, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports once that `fd` has become readable.
    pub(crate) fn add(&self, key: u64, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let fd = fd.as_raw_fd();
        self.watched().insert(key, Watched { fd, once: true });
        Ok(())
    }

    /// Reports each time that `fd` is readable.
    pub(crate) fn add_waker(&self, key: u64, fd: &impl AsFd) -> Result<(), Errno> {
        let fd = fd.as_fd().as_raw_fd();
        self.watched().insert(key, Watched { fd, once: false });
        Ok(())
    }

    /// Forgets a descriptor before it is closed.
    pub(crate) fn remove(&self, key: u64) {
        self.watched().remove(&key);
    }

    /// Waits until a descriptor is readable, at most for `milliseconds`; -1 is for ever. Returns the keys
    /// of those that are.
    pub(crate) fn wait(&self, milliseconds: i32) -> Result<Vec<u64>, Errno> {
        let (keys, mut fds): (Vec<u64>, Vec<libc::pollfd>) = self
            .watched()
            .iter()
            .map(|(key, watched)| (*key, readable(watched.fd)))
            .unzip();
        // SAFETY: the array holds as many entries as is said.
        check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) })?;
        let ready = keys.into_iter().zip(fds).filter(|(_, fd)| fd.revents != 0);
        let ready: Vec<u64> = ready.map(|(key, _)| key).collect();
        let mut watched = self.watched();
        for key in &ready {
            if watched.get(key).is_some_and(|watched| watched.once) {
                watched.remove(key);
            }
        }
        Ok(ready)
    }
}

fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}
