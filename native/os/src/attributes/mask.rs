//! The permissions of new files.
//!
//! # Safety
//! Unsafe code here makes system calls that take integers and change the calling process alone.
#![allow(unsafe_code)]

/// The permissions that files which the program makes do not get. Those that the spawn itself makes
/// for the standard streams are under the mask of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Umask(u32);

impl Umask {
    /// `None` if there are other bits than permissions: the kernel would drop them.
    pub fn new(mask: u32) -> Option<Umask> {
        (mask <= 0o777).then_some(Umask(mask))
    }

    /// Gives it to this process, the child. It cannot fail.
    #[cfg(by_clone)]
    pub(super) fn apply(self) -> Result<(), i32> {
        // SAFETY: it takes an integer. The child has a mask of its own: a clone without CLONE_FS.
        unsafe { libc::umask(self.0 as libc::mode_t) };
        Ok(())
    }
}
