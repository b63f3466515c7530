//! The share of the processors.
//!
//! # Safety
//! Unsafe code here makes system calls that take integers and change the calling process alone.
#![allow(unsafe_code)]

#[cfg(by_clone)]
use crate::errno::Errno;

/// A nice value, from -20, the most favoured, to 19, the least. A value lower than that of this
/// process takes privileges, or a limit (`RLIMIT_NICE`) that allows it.
///
/// # Caveats
/// Each command leads a session. A Linux that shares the processors out among sessions first
/// (`/proc/sys/kernel/sched_autogroup_enabled` is 1, and the process is in the root group of the cpu
/// controller) compares nice values within one session alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nice(i32);

impl Nice {
    /// `None` outside the range. The kernel would take the nearest value.
    pub fn new(value: i32) -> Option<Nice> {
        (-20..=19).contains(&value).then_some(Nice(value))
    }

    /// Applies it to this process, the child.
    #[cfg(by_clone)]
    pub(super) fn apply(self) -> Result<(), i32> {
        // SAFETY: it takes integers. 0 is the calling thread, the only one of the child: a clone
        // without CLONE_THREAD.
        match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, self.0) } {
            0 => Ok(()),
            _ => Err(Errno::last().raw()),
        }
    }
}
