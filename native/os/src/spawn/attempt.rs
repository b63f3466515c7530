//! A spawn that another thread can cancel.
//!
//! The thread that spawns cannot be interrupted while it waits for the program to be executed. That
//! may take for ever, on a file system whose server is gone, or for a file under a lease. But the
//! child exists by then, and killing it ends the wait.
//!
//! Two things must never happen: that a cancelled spawn hangs, and that a signal reaches a process
//! that is not ours.
//!
//! *A cancelled spawn hangs* if `cancel` finds no child to kill, and the child does not see that
//! the spawn is cancelled. So each writes before it reads: `cancel` marks the spawn as cancelled
//! and then looks for a child; the child announces itself and then looks for the mark. Whichever
//! comes second sees the other.
//!
//! *A signal reaches a stranger* in this order: `cancel` reads the number of the child's pidfd; the
//! spawn ends and closes the pidfd; a third thread opens a file, or spawns, and gets that number;
//! `cancel` sends its signal through it. The same can happen with the number of a process that has
//! been reaped. So `cancel` holds a lock while it reads and signals, and the spawning thread takes
//! that lock to [hide](Attempt::hide) the child before it closes or reaps anything. The child
//! announces itself only once it runs, which proves that the clone succeeded: a clone that fails
//! late has written the number, too, and closed it again.

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(by_clone)]
pub(super) use shown::Target;

use super::error::SpawnError;

/// One spawn, or one pipeline, which another thread can cancel. It may be cancelled before it
/// begins, and several times.
#[derive(Debug, Default)]
pub struct Attempt {
    cancelled: AtomicBool,
    #[cfg(by_clone)]
    child: shown::Child,
}

impl Attempt {
    /// A spawn that is not cancelled.
    pub fn new() -> Attempt {
        Attempt::default()
    }

    /// Makes the spawn fail with [`SpawnError::CANCELLED`] and leave nothing behind. Returns at
    /// once, even while the program is being executed. A spawn that has already succeeded or failed
    /// does not change.
    ///
    /// # Caveats
    /// `posix_spawn` does not reveal the child before it returns. A program that hangs in it hangs
    /// until the system releases it, and is ended then.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        #[cfg(by_clone)]
        self.child.kill();
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// The error of a spawn that was cancelled.
    pub(crate) fn check(&self) -> Result<(), SpawnError> {
        if self.is_cancelled() {
            Err(SpawnError::CANCELLED)
        } else {
            Ok(())
        }
    }

    /// Lets `cancel` find the child. `false`: the spawn has been cancelled already, and the child
    /// must exit. Allocates nothing and takes no lock, so that the cloned child can call it.
    #[cfg(by_clone)]
    pub(super) fn show(&self, target: Target) -> bool {
        self.child.show(target);
        !self.is_cancelled()
    }

    /// From now on `cancel` finds no child. The parent calls this before it closes the pidfd or
    /// reaps the child.
    #[cfg(by_clone)]
    pub(super) fn hide(&self) {
        self.child.hide();
    }
}

#[cfg(by_clone)]
mod shown {
    //! The child of a spawn that is under way.

    use std::os::fd::RawFd;
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::sync::{Mutex, PoisonError};

    use crate::kernel::{number, pidfd};
    use crate::signal::Signal;

    /// How a child is named.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::spawn) enum Target {
        Pidfd(RawFd),
        /// Where there are no pidfds.
        Number(libc::pid_t),
    }

    /// The child, if there is one, in one word: a pidfd as it is, a process id with a minus sign.
    #[derive(Debug)]
    pub(super) struct Child {
        shown: AtomicI32,
        /// Held while the word is used, and taken before the number becomes meaningless.
        in_use: Mutex<()>,
    }

    const NONE: i32 = i32::MIN;

    impl Default for Child {
        fn default() -> Self {
            Child {
                shown: AtomicI32::new(NONE),
                in_use: Mutex::new(()),
            }
        }
    }

    impl Child {
        pub(super) fn show(&self, target: Target) {
            let word = match target {
                Target::Pidfd(fd) => fd,
                Target::Number(pid) => -pid,
            };
            self.shown.store(word, Ordering::SeqCst);
        }

        pub(super) fn hide(&self) {
            let _mine = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
            self.shown.store(NONE, Ordering::SeqCst);
        }

        pub(super) fn kill(&self) {
            let _mine = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
            // It may have ended by itself.
            let _ = match self.shown.load(Ordering::SeqCst) {
                NONE => return,
                pid if pid < 0 => number::signal(-pid, Signal::KILL),
                fd => pidfd::signal_raw(fd, Signal::KILL),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_attempt_is_not_cancelled_and_a_cancelled_one_stays_so() {
        let attempt = Attempt::new();
        assert_eq!(attempt.check(), Ok(()));
        attempt.cancel();
        attempt.cancel();
        assert!(attempt.is_cancelled());
        assert_eq!(attempt.check(), Err(SpawnError::CANCELLED));
    }
}
