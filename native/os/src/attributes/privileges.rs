//! What the program may gain.
//!
//! # Safety
//! Unsafe code here makes system calls that take integers and change the calling process alone.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_ulong};

use crate::errno::Errno;

/// From here on this process, the child, and what it executes gain nothing by executing a program
/// that runs as another user or has capabilities of its own.
pub(super) fn gain_none() -> Result<(), i32> {
    let (yes, unused): (c_ulong, c_ulong) = (1, 0);
    let option: c_int = libc::PR_SET_NO_NEW_PRIVS;
    // SAFETY: it takes integers, all of which the kernel checks. It concerns the calling thread, the
    // only one of the child: a clone without CLONE_THREAD.
    match unsafe { libc::prctl(option, yes, unused, unused, unused) } {
        0 => Ok(()),
        _ => Err(Errno::last().raw()),
    }
}
