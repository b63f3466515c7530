//! The permissions of new files.
//!
//! # Safety
//! Unsafe code here makes system calls that take integers and change the calling process alone.
#![allow(unsafe_code)]

/// Sets the permissions that new files do not get. It cannot fail.
pub(super) fn set_umask(mask: u32) -> Result<(), i32> {
    // SAFETY: it takes an integer. The child has a mask of its own: a clone without CLONE_FS.
    unsafe { libc::umask(mask as libc::mode_t) };
    Ok(())
}
