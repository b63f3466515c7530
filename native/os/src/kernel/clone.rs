//! `clone`, on the memory of the parent, which waits meanwhile.
//!
//! # Safety
//! The unsafe code relies on the calling thread being suspended until the child has executed or
//! exited: what the child uses outlives its use.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::command::with_room;
use crate::errno::{Errno, check};

/// Where there is no descriptor.
pub(crate) const NO_FD: RawFd = -1;

/// The child's stack in bytes: it uses under 1 KiB, a walk through a directory another 4. Below the size from which allocators map memory anew.
const STACK_SIZE: usize = 64 * 1024;

/// The alignment of a stack pointer that `clone` requires on every architecture.
const STACK_ALIGN: usize = 16;

/// Creates a process that exits at once. When this function returns, the process has exited or is
/// about to.
pub(crate) fn clone_and_exit(code: u8) -> Result<(libc::pid_t, Option<OwnedFd>), Errno> {
    extern "C" fn exit(code: *mut c_void) -> c_int {
        // SAFETY: the pointer is to the parent's `code`; _exit runs no handlers and flushes
        // nothing of the parent's.
        unsafe { libc::_exit(*code.cast::<c_int>()) }
    }
    let mut code = c_int::from(code);
    let mut pidfd = NO_FD;
    // SAFETY: `exit` gets the pointer that it expects, to what outlives this call; on success the
    // descriptor is open and nobody else's.
    unsafe {
        let code = (&raw mut code).cast();
        let pid = clone(exit, code, libc::CLONE_PIDFD, &raw mut pidfd)?;
        Ok((pid, (pidfd != NO_FD).then(|| OwnedFd::from_raw_fd(pidfd))))
    }
}

/// A process that runs `child` on memory of ours, with all signals blocked. Returns when it has
/// executed a program or exited. With `CLONE_PIDFD` the kernel puts a pidfd of it into `pidfd`
/// before it runs; kernels before 5.2 do not know the flag and leave that alone.
///
/// # Safety
/// `child` only makes system calls, and comes to an end with the `argument`. `pidfd` may be written.
pub(crate) unsafe fn clone(
    child: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
    flags: c_int,
    pidfd: *mut RawFd,
) -> Result<libc::pid_t, Errno> {
    let mut stack = with_room::<u8>(STACK_SIZE)?;
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let top = top.wrapping_sub(top.addr() % STACK_ALIGN).cast::<c_void>();
    let flags = flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let _blocked = BlockedSignals::new()?;
    // SAFETY: `top` is the aligned end of a stack of STACK_SIZE bytes that lives until the end of
    // this function; with CLONE_PIDFD the variadic argument is where the descriptor goes.
    // CLONE_VFORK suspends us meanwhile.
    check(unsafe { libc::clone(child, top, flags, argument, pidfd) })
}

/// While it lives, no signal is delivered to this thread.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> Result<Self, Errno> {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises `all`, pthread_sigmask initialises `before`.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
                0 => Ok(BlockedSignals {
                    before: before.assume_init(),
                }),
                errno => Err(Errno::new(errno)),
            }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask this thread had; setting it back cannot fail.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut())
        };
    }
}
