//! The resources that the program may use.
//!
//! # Safety
//! Unsafe code here makes a system call that reads one structure and changes the calling process
//! alone.
#![allow(unsafe_code)]

use std::ffi::c_int;

#[cfg(by_clone)]
use crate::errno::Errno;

/// A limit on one resource. The program may raise it up to the hard one. A hard limit higher than
/// that of this process takes privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    resource: c_int,
    /// As the kernel reads them: the soft limit, and the hard one.
    values: [u64; 2],
}

impl Limit {
    /// Stands for no limit.
    pub const INFINITY: u64 = u64::MAX;

    /// `None` if there is no resource of this name, or `soft` is above `hard`, which the kernel would
    /// refuse.
    pub fn new(name: &str, soft: u64, hard: u64) -> Option<Limit> {
        let resource = match name {
            "cpu" => libc::RLIMIT_CPU as c_int,
            "memory" => libc::RLIMIT_AS as c_int,
            "file_size" => libc::RLIMIT_FSIZE as c_int,
            "open_files" => libc::RLIMIT_NOFILE as c_int,
            "processes" => libc::RLIMIT_NPROC as c_int,
            "core" => libc::RLIMIT_CORE as c_int,
            "stack" => libc::RLIMIT_STACK as c_int,
            _ => return None,
        };
        (soft <= hard).then_some(Limit {
            resource,
            values: [soft, hard],
        })
    }

    /// Applies it to this process, the child.
    #[cfg(by_clone)]
    pub(super) fn apply(&self) -> Result<(), i32> {
        let (own, old) = (0, std::ptr::null_mut::<u64>());
        // SAFETY: prlimit64 reads two 64-bit numbers on every architecture. The limits of the child
        // are its own: a clone without CLONE_THREAD.
        let set = unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                own,
                self.resource,
                self.values.as_ptr(),
                old,
            )
        };
        match set {
            0 => Ok(()),
            _ => Err(Errno::last().raw()),
        }
    }
}
