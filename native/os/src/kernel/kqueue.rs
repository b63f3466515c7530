//! The end of a process by a kqueue: it becomes readable, and stays so, since nobody fetches the
//! event.
//!
//! `NOTE_EXITSTATUS` is not asked for: the event keeps no number from being reused, so children
//! must be zombies until they are waited for anyhow, and waiting tells the status.

use std::os::fd::OwnedFd;

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
            // Some systems do not find a zombie: it has ended, so tell.
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
