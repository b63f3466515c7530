//! The processors that the program may run on.
//!
//! # Safety
//! Unsafe code here makes a system call that reads a mask and changes the calling process alone.
#![allow(unsafe_code)]

use std::ffi::c_ulong;

#[cfg(by_clone)]
use crate::errno::Errno;

const BITS: usize = c_ulong::BITS as usize;
const WORDS: usize = Cpus::MOST / BITS;

/// Processors by their numbers. Those that do not exist are passed over, but one must exist, and be
/// one that this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus([c_ulong; WORDS]);

impl Cpus {
    /// Numbers are below this.
    pub const MOST: usize = 1024;

    /// `None` for a number that is too large.
    pub fn new(numbers: &[u32]) -> Option<Cpus> {
        let mut words = [0; WORDS];
        for number in numbers {
            let number = usize::try_from(*number).ok()?;
            *words.get_mut(number / BITS)? |= 1 << (number % BITS);
        }
        Some(Cpus(words))
    }

    /// Applies it to this process, the child.
    #[cfg(by_clone)]
    pub(super) fn apply(self) -> Result<(), i32> {
        let size = size_of_val(&self.0);
        // SAFETY: the kernel reads `size` bytes of the mask. 0 is the calling thread, the only one of
        // the child: a clone without CLONE_THREAD.
        match unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, self.0.as_ptr()) } {
            0 => Ok(()),
            _ => Err(Errno::last().raw()),
        }
    }
}
