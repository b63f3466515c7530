//! The permissions of new files.
//!
//! # Safety
//! Unsafe code here makes system calls that take integers and change the calling process alone.
#![allow(unsafe_code)]

/// The permissions that files created by the program do not get. Files that the spawn itself
/// creates for the standard streams follow the mask of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Umask(u32);

impl Umask {
    /// `None` if there are other bits than permissions. The kernel would drop them silently.
    pub fn new(mask: u32) -> Option<Umask> {
        (mask <= 0o777).then_some(Umask(mask))
    }

    /// Applies it to this process, the child. It cannot fail.
    #[cfg(by_clone)]
    pub(super) fn apply(self) -> Result<(), i32> {
        // SAFETY: it takes an integer. The child has a mask of its own: a clone without CLONE_FS.
        unsafe { libc::umask(self.0 as libc::mode_t) };
        Ok(())
    }
}
