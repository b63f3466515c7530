//! Many descriptors, any of which may become readable: epoll, where the cost of an event does not
//! depend on how many there are.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::errno::Errno;
use crate::pipe::above_standard;

/// How many events one wait returns.
const EVENTS: usize = 64;

/// A set of descriptors, each with a key.
pub(crate) struct Poller(Epoll);

impl Poller {
    /// Whether a wait must be ended for a new descriptor to be seen.
    pub(crate) const NEEDS_WAKER: bool = false;

    pub(crate) fn new() -> Result<Poller, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Poller(Epoll(above_standard(epoll.0)?)))
    }

    /// Reports once that `fd` has become readable.
    pub(crate) fn add(&self, key: u64, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        Ok(self.0.add(fd, EpollEvent::new(once, key))?)
    }

    /// Reports each time that `fd` is readable.
    pub(crate) fn add_waker(&self, key: u64, fd: &impl AsFd) -> Result<(), Errno> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, key);
        Ok(self.0.add(fd, event)?)
    }

    /// Forgets a descriptor before it is closed. The kernel does this by itself.
    #[expect(clippy::unused_self, reason = "other pollers have something to do")]
    pub(crate) fn remove(&self, _key: u64) {}

    /// Waits until a descriptor is readable, at most for `milliseconds`; -1 is for ever. Returns the keys
    /// of those that are.
    pub(crate) fn wait(&self, milliseconds: i32) -> Result<Vec<u64>, Errno> {
        let timeout = EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::NONE);
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.0.wait(&mut events, timeout)?;
        Ok(events[..count].iter().map(EpollEvent::data).collect())
    }
}
