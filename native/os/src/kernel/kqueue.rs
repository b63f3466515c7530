//! Kqueues: one for each process, which becomes readable when that ends and stays so, since nobody
//! fetches the event; and one for many descriptors, any of which may become readable.
//!
//! `NOTE_EXITSTATUS` is not requested. The event does not keep the number from being reused, so
//! children must stay zombies until they are waited for anyway, and waiting returns the status.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

use crate::errno::Errno;
use crate::pipe::above_standard;

/// A new kqueue.
pub(crate) struct Queue(Kqueue);

impl Queue {
    pub(crate) fn new() -> Result<Queue, Errno> {
        Ok(Queue(Kqueue::new()?))
    }

    /// Makes it become readable when a process ends that has not been reaped.
    pub(crate) fn until_end_of(self, pid: libc::pid_t) -> Result<OwnedFd, Errno> {
        let ident = pid.unsigned_abs() as usize;
        let process = EventFilter::EVFILT_PROC;
        match self.add(ident, process, FilterFlag::NOTE_EXIT) {
            // Some systems do not find a zombie. It has ended, so report that.
            Err(Errno::ESRCH) => {
                self.add(ident, EventFilter::EVFILT_USER, FilterFlag::empty())?;
                self.add(ident, EventFilter::EVFILT_USER, FilterFlag::NOTE_TRIGGER)?;
            }
            result => result?,
        }
        above_standard(self.0.into())
    }

    fn add(&self, ident: usize, filter: EventFilter, flags: FilterFlag) -> Result<(), Errno> {
        let event = KEvent::new(ident, filter, EvFlags::EV_ADD, flags, 0, 0);
        self.0.kevent(&[event], &mut [], None)?;
        Ok(())
    }
}

/// How many events one wait returns.
const EVENTS: usize = 64;

/// A set of descriptors, each with a key.
pub(crate) struct Poller(Kqueue);

impl Poller {
    /// Whether a wait must be ended for a new descriptor to be seen.
    pub(crate) const NEEDS_WAKER: bool = false;

    pub(crate) fn new() -> Result<Poller, Errno> {
        Ok(Poller(Kqueue::new()?))
    }

    /// Reports once that `fd` has become readable.
    pub(crate) fn add(&self, key: u64, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        self.add_with(key, fd, EvFlags::EV_ADD | EvFlags::EV_ONESHOT)
    }

    /// Reports each time that `fd` is readable.
    pub(crate) fn add_waker(&self, key: u64, fd: &impl AsFd) -> Result<(), Errno> {
        self.add_with(key, fd.as_fd(), EvFlags::EV_ADD)
    }

    fn add_with(&self, key: u64, fd: BorrowedFd<'_>, flags: EvFlags) -> Result<(), Errno> {
        let ident = fd.as_raw_fd().unsigned_abs() as usize;
        let filter = EventFilter::EVFILT_READ;
        let event = KEvent::new(ident, filter, flags, FilterFlag::empty(), 0, key as isize);
        self.0.kevent(&[event], &mut [], None)?;
        Ok(())
    }

    /// Forgets a descriptor before it is closed. The kernel does this by itself.
    #[expect(clippy::unused_self, reason = "other pollers have something to do")]
    pub(crate) fn remove(&self, _key: u64) {}

    /// Waits until a descriptor is readable, at most for `milliseconds`; -1 is for ever. Returns the keys
    /// of those that are.
    pub(crate) fn wait(&self, milliseconds: i32) -> Result<Vec<u64>, Errno> {
        let none = KEvent::new(
            0,
            EventFilter::EVFILT_READ,
            EvFlags::empty(),
            FilterFlag::empty(),
            0,
            0,
        );
        let mut events = [none; EVENTS];
        let timeout = u64::try_from(milliseconds)
            .ok()
            .map(|milliseconds| libc::timespec {
                tv_sec: (milliseconds / 1000) as libc::time_t,
                tv_nsec: (milliseconds % 1000 * 1_000_000) as libc::c_long,
            });
        let count = self.0.kevent(&[], &mut events, timeout)?;
        Ok(events[..count]
            .iter()
            .map(|event| event.udata() as u64)
            .collect())
    }
}
