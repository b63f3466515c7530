//! The share of the processors.
//!
//! # Safety
//! Unsafe code here makes system calls that take integers and change the calling process alone.
#![allow(unsafe_code)]

use crate::errno::Errno;

/// Sets the nice value. To lower it takes privileges.
pub(super) fn set_nice(value: i32) -> Result<(), i32> {
    // SAFETY: it takes integers. 0 is the calling thread, the only one of the child: a clone without
    // CLONE_THREAD.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) } {
        0 => Ok(()),
        _ => Err(Errno::last().raw()),
    }
}
