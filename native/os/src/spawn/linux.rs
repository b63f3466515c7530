//! `clone`, with a pidfd where there are any, and what the child does until it executes the
//! program.
//!
//! The child runs on the parent's memory (`CLONE_VM`) while the calling thread waits
//! (`CLONE_VFORK`), which makes a spawn cost the same at any heap size. Three rules follow:
//!
//! * Between clone and exec there are only system calls: no allocation, no lock, no panic.
//!   Everything they need was built before.
//! * Every signal is blocked from before the clone until the child has reset its handlers, or a
//!   signal to the child would run this process's handlers on this process's memory.
//! * The child writes the failing step and errno into the parent's memory: that is how a program
//!   that cannot be executed is an error and never an exit status.
//!
//! # Safety
//! The unsafe code relies on the calling thread being suspended until the child has executed or
//! exited: the plan and the stack, both owned by the caller, outlive the child's use of them.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{Plan, Process, SpawnError, Step, at};
use crate::errno::{Errno, check};
use crate::guard;
use crate::kernel::{number, pidfd};

/// The child's stack in bytes: it uses under 1 KiB, the directory walk of [`hide_descriptors`]
/// another [`ENTRIES_SIZE`]. Below the size from which allocators map memory anew.
const STACK_SIZE: usize = 64 * 1024;

/// What `clone` wants of a stack pointer on every architecture.
const STACK_ALIGN: usize = 16;

/// Room for the directory entries of one `getdents64`, in bytes.
const ENTRIES_SIZE: usize = 4096;

/// Room for the kernel's `struct sigaction` of any architecture, in bytes (x86-64 has 32).
const KERNEL_SIGACTION_SIZE: usize = 64;

/// The kernel's signal set, in bytes: 64 signals, on MIPS 128.
const KERNEL_SIGSET_SIZE: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    16
} else {
    8
};

/// What the child's exit would say if anybody saw it; the errno in the plan says more.
const EXIT_NOT_EXECUTED: c_int = 127;

/// What parent and child share: the plan, and where the child tells what went wrong.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    parent: libc::pid_t,
    failure: Option<(Step, i32)>,
    reported: bool,
}

/// Makes the process and executes the program in it. Returns when it runs, or when it has failed
/// and is gone.
pub(super) fn execute(plan: &Plan<'_>, with_pidfd: bool) -> Result<Process, SpawnError> {
    let mut shared = Shared {
        plan,
        // SAFETY: getpid cannot fail.
        parent: unsafe { libc::getpid() },
        failure: None,
        reported: true,
    };
    let shared_ptr = ptr::from_mut(&mut shared);
    // SAFETY: `run_child` gets the pointer that it expects, to what outlives this call.
    let cloned = unsafe { clone(run_child, shared_ptr.cast(), with_pidfd) };
    let (pid, pidfd) = cloned.map_err(at(Step::Clone))?;

    // SAFETY: the child wrote it before it left our memory; the compiler must not assume that
    // nothing changed behind its back.
    match unsafe { ptr::addr_of!((*shared_ptr).failure).read_volatile() } {
        None => {
            // SAFETY: as above.
            let reported = unsafe { ptr::addr_of!((*shared_ptr).reported).read_volatile() };
            Ok(Process {
                pid,
                pidfd,
                reported,
            })
        }
        Some((step, errno)) => {
            // So that not even a zombie is left.
            match &pidfd {
                Some(pidfd) => drop(pidfd::bury(pidfd)),
                None => number::bury(pid),
            }
            Err(SpawnError {
                step,
                errno: Errno::new(errno),
            })
        }
    }
}

/// Makes a process that exits at once. It has, or is about to, when this returns.
pub(crate) fn clone_and_exit(
    code: u8,
    with_pidfd: bool,
) -> Result<(libc::pid_t, Option<OwnedFd>), Errno> {
    extern "C" fn exit(code: *mut c_void) -> c_int {
        // SAFETY: the pointer is to the parent's `code`; _exit runs no handlers and flushes
        // nothing of the parent's.
        unsafe { libc::_exit(*code.cast::<c_int>()) }
    }
    let mut code = c_int::from(code);
    // SAFETY: `exit` gets the pointer that it expects, to what outlives this call.
    unsafe { clone(exit, (&raw mut code).cast(), with_pidfd) }
}

/// A process that runs `child` on memory of ours, with all signals blocked. Returns when it has
/// executed a program or exited. Kernels before 5.2 do not know of pidfds and give none.
///
/// # Safety
/// `child` only makes system calls, and comes to an end with the `argument`.
unsafe fn clone(
    child: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
    with_pidfd: bool,
) -> Result<(libc::pid_t, Option<OwnedFd>), Errno> {
    let mut stack = Vec::<u8>::with_capacity(STACK_SIZE);
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let top = top.wrapping_sub(top.addr() % STACK_ALIGN).cast::<c_void>();
    let mut pidfd: RawFd = -1;
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    if with_pidfd {
        flags |= libc::CLONE_PIDFD;
    }
    let _blocked = BlockedSignals::new()?;
    // SAFETY: `top` is the aligned end of a stack of STACK_SIZE bytes that lives until the end of
    // this function; with CLONE_PIDFD the variadic argument is where the descriptor goes.
    // CLONE_VFORK suspends us meanwhile.
    let pid = check(unsafe { libc::clone(child, top, flags, argument, &raw mut pidfd) })?;
    // SAFETY: the kernel wrote a descriptor, which is open and nobody else's.
    let pidfd = (pidfd != -1).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok((pid, pidfd))
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

// From here on: the child, on borrowed memory. System calls only.

extern "C" fn run_child(shared: *mut c_void) -> c_int {
    let shared = shared.cast::<Shared<'_>>();
    // SAFETY: the parent passed a pointer to its `Shared` and is suspended.
    let failure = unsafe {
        let plan = (*shared).plan;
        if let Some(guard) = plan.guard {
            ptr::addr_of_mut!((*shared).reported).write_volatile(report_self(guard));
        }
        prepare_and_exec(plan, (*shared).parent)
    };
    // SAFETY: as above; _exit runs no handlers and flushes nothing of the parent's.
    unsafe {
        ptr::addr_of_mut!((*shared).failure).write_volatile(Some(failure));
        libc::_exit(EXIT_NOT_EXECUTED)
    }
}

/// Tells the guard of this process. The group need not exist yet: the guard asks for it when it
/// is needed.
///
/// # Safety
/// To be called in the cloned child only.
unsafe fn report_self(guard: RawFd) -> bool {
    // SAFETY: getpid cannot fail, and its number is ours as long as we live; the descriptor is
    // the child's own, whose table is a copy.
    unsafe {
        let Ok(pidfd) = pidfd::open(libc::getpid()) else {
            return false;
        };
        guard::is_settled(guard::send_report(guard, pidfd.as_raw_fd()))
    }
}

fn errno() -> i32 {
    Errno::last().raw()
}

/// Comes back only with a failure.
///
/// # Safety
/// To be called in the cloned child only, all signals blocked.
unsafe fn prepare_and_exec(plan: &Plan<'_>, parent: libc::pid_t) -> (Step, i32) {
    // SAFETY: plain system calls on values of the plan, which the suspended parent keeps alive.
    unsafe {
        default_signal_handlers();

        if plan.detached {
            if libc::setsid() == -1 {
                return (Step::Prepare, errno());
            }
        } else {
            if libc::setsid() == -1
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_long) == -1
            {
                return (Step::Prepare, errno());
            }
            // The parent may have died before the bond was tied.
            if libc::getppid() != parent {
                return (Step::Prepare, libc::ESRCH);
            }
        }

        for (theirs, standard) in [(plan.stdin, 0), (plan.stdout, 1), (plan.stderr, 2)] {
            if let Some(fd) = theirs {
                if libc::dup2(fd, standard) == -1 {
                    return (Step::Prepare, errno());
                }
            }
        }
        if plan.stderr_to_stdout && libc::dup2(1, 2) == -1 {
            return (Step::Prepare, errno());
        }
        if let Err(errno) = hide_descriptors() {
            return (Step::Prepare, errno);
        }

        if let Some(directory) = plan.directory {
            if libc::chdir(directory.as_ptr()) == -1 {
                return (Step::Directory, errno());
            }
        }

        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        (Step::Exec, exec(plan))
    }
}

/// Tries the candidates in order, as `execvp` does: a directory without the program is passed
/// over, one with a program that may not be executed is remembered.
///
/// # Safety
/// To be called in the cloned child only.
unsafe fn exec(plan: &Plan<'_>) -> i32 {
    let argv = plan.argv.array.as_ptr();
    let env = plan.env.array.as_ptr();
    let mut result = libc::ENOENT;
    for &file in &plan.candidates.array {
        if file.is_null() {
            break;
        }
        // SAFETY: `Pointers` holds null-terminated arrays of C strings.
        unsafe { libc::execve(file, argv, env) };
        match errno() {
            libc::ENOENT => {}
            libc::ENOTDIR if plan.searched => {}
            libc::EACCES => result = libc::EACCES,
            errno => return errno,
        }
    }
    result
}

/// Every signal does what it does by default, in place of the handlers of this process, which
/// would run on its memory, and of what it ignores, which the program would inherit.
///
/// # Safety
/// To be called in the cloned child only.
unsafe fn default_signal_handlers() {
    // Not the C library's `sigaction`: it refuses the signals it keeps for itself, and may take a
    // lock. All zeroes is SIG_DFL, no flags, an empty mask; numbers that may not be changed are
    // refused, which is fine.
    let default = [0u64; KERNEL_SIGACTION_SIZE / 8];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the kernel reads its sigaction, which is no larger, from the array.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<c_void>(),
                KERNEL_SIGSET_SIZE,
            )
        };
    }
}

/// Lets no descriptor above 2 through: the VM's own are not all close-on-exec.
///
/// # Safety
/// To be called in the cloned child only.
unsafe fn hide_descriptors() -> Result<(), i32> {
    let close_range = |flags: libc::c_uint| {
        // SAFETY: it changes the child's descriptors only; the parent's table is another one.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) }
    };
    if close_range(libc::CLOSE_RANGE_CLOEXEC) == 0 {
        return Ok(());
    }
    match errno() {
        // The call is there, the flag is not: nothing above 2 is needed any more, so close.
        libc::EINVAL if close_range(0) == 0 => Ok(()),
        // SAFETY: as for this function.
        _ => unsafe { hide_listed_descriptors() },
    }
}

/// The same by the list of open descriptors, for kernels and sandboxes without `close_range`.
///
/// # Safety
/// To be called in the cloned child only.
unsafe fn hide_listed_descriptors() -> Result<(), i32> {
    let mut entries = MaybeUninit::<[u64; ENTRIES_SIZE / 8]>::uninit();
    let start = entries.as_mut_ptr().cast::<u8>();
    // SAFETY: a C string literal; `start` is valid for ENTRIES_SIZE bytes, aligned for the
    // 64-bit fields, and only what getdents64 filled is read.
    unsafe {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let directory = libc::open(c"/proc/self/fd".as_ptr(), flags);
        if directory == -1 {
            return Err(errno());
        }
        loop {
            let filled = libc::syscall(libc::SYS_getdents64, directory, start, ENTRIES_SIZE);
            match usize::try_from(filled) {
                Ok(0) => return Ok(()),
                Err(_) => return Err(errno()),
                Ok(filled) => {
                    let mut offset = 0;
                    while offset < filled {
                        let entry = start.add(offset).cast::<libc::dirent64>();
                        let name = ptr::addr_of!((*entry).d_name).cast::<c_char>();
                        if let Some(fd) = number(name) {
                            if fd > 2 {
                                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                            }
                        }
                        offset += usize::from(ptr::addr_of!((*entry).d_reclen).read_unaligned());
                    }
                }
            }
        }
    }
}

/// The number a directory entry is named after; `None` for `.` and `..`.
///
/// # Safety
/// `name` is a C string.
unsafe fn number(name: *const c_char) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut at = name;
    loop {
        // SAFETY: `at` has not passed the terminating NUL.
        let byte = unsafe { *at } as u8;
        match byte {
            0 => return if at == name { None } else { Some(value) },
            b'0'..=b'9' => {
                value = value
                    .wrapping_mul(10)
                    .wrapping_add(c_int::from(byte - b'0'))
            }
            _ => return None,
        }
        at = at.wrapping_add(1);
    }
}
