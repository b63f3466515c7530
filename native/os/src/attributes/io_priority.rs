//! The share of the disks.
//!
//! # Safety
//! Unsafe code here makes a system call that takes integers and changes the calling process alone.
#![allow(unsafe_code)]

use std::ffi::c_int;

#[cfg(by_clone)]
use crate::errno::Errno;

/// The kernel's names for what the priority is of, and where the class is in the number.
#[cfg(by_clone)]
const IOPRIO_WHO_PROCESS: c_int = 1;
const CLASS_SHIFT: u32 = 13;
const BEST_EFFORT: c_int = 2;
const IDLE: c_int = 3;

/// When the disk serves the program, if others use it as well. Only some schedulers of the kernel
/// follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoPriority(c_int);

impl IoPriority {
    /// Only while nobody else uses the disk.
    pub const IDLE: IoPriority = IoPriority(IDLE << CLASS_SHIFT);

    /// From 0, the first, to 7, the last. `None` outside the range.
    pub fn best_effort(level: u8) -> Option<IoPriority> {
        (level < 8).then_some(IoPriority(
            (BEST_EFFORT << CLASS_SHIFT) | c_int::from(level),
        ))
    }

    /// Applies it to this process, the child.
    #[cfg(by_clone)]
    pub(super) fn apply(self) -> Result<(), i32> {
        // SAFETY: it takes integers. 0 is the calling thread, the only one of the child: a clone
        // without CLONE_THREAD.
        match unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, self.0) } {
            0 => Ok(()),
            _ => Err(Errno::last().raw()),
        }
    }
}
