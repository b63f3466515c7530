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
//! Where there are [reserved] numbers the child also shares the parent's descriptors for a moment
//! (`CLONE_FILES`): nothing may be opened, closed or changed before it has left them.
//!
//! # Safety
//! The unsafe code relies on the calling thread being suspended until the child has executed or
//! exited: the plan and the stack, both owned by the caller, outlive the child's use of them.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::attempt::Target;
use super::error::{SpawnError, Step, at};
use super::plan::{Plan, Process, Tried};
use super::reserved;
use crate::errno::Errno;
use crate::guard;
use crate::kernel::clone::{NO_FD, clone};
use crate::kernel::{number, pidfd};
use crate::signal::Signal;

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

/// The exit status of a child that has failed. Nobody sees it: the errno in the plan says more.
const EXIT_NOT_EXECUTED: c_int = 127;

/// What parent and child share: the plan, and the record into which the child writes what went wrong.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    parent: libc::pid_t,
    /// Both use the same descriptor table until the child leaves it.
    one_table: bool,
    /// The kernel writes it before the child runs.
    pidfd: RawFd,
    failure: Option<Failure>,
    reported: bool,
}

/// Why a child has not executed the program.
#[derive(Clone, Copy)]
enum Failure {
    At(Step, i32),
    /// The spawn was cancelled before it began.
    Cancelled,
    /// It could not leave the parent's table of descriptors, and has done nothing.
    SharesTable(i32),
}

/// Creates the process and executes the program in it. Returns when the program runs, or when the
/// child has failed and is gone.
pub(super) fn execute(plan: &Plan<'_>, with_pidfd: bool) -> Result<Process, SpawnError> {
    if let Some(mut low) = reserved::take() {
        // It fails where the limit of descriptors is below those numbers.
        if let Ok(plan) = low.lend(plan) {
            let made = make(&plan, with_pidfd, true);
            drop(low);
            match made {
                Err(Failure::SharesTable(errno)) => {
                    // It failed for want of memory, which may be there another time.
                    if ![libc::ENOMEM, libc::EAGAIN, libc::EMFILE].contains(&errno) {
                        reserved::refuse();
                    }
                }
                made => return made.map_err(SpawnError::from),
            }
        }
    }
    make(plan, with_pidfd, false).map_err(SpawnError::from)
}

impl From<Failure> for SpawnError {
    fn from(failure: Failure) -> SpawnError {
        match failure {
            Failure::At(step, errno) => at(step)(Errno::new(errno)),
            Failure::SharesTable(errno) => at(Step::Prepare)(Errno::new(errno)),
            Failure::Cancelled => SpawnError::CANCELLED,
        }
    }
}

fn make(plan: &Plan<'_>, with_pidfd: bool, one_table: bool) -> Result<Process, Failure> {
    let mut shared = Shared {
        plan,
        // SAFETY: getpid cannot fail.
        parent: unsafe { libc::getpid() },
        one_table,
        pidfd: NO_FD,
        failure: None,
        reported: true,
    };
    let shared_ptr = ptr::from_mut(&mut shared);
    let mut flags = if with_pidfd { libc::CLONE_PIDFD } else { 0 };
    if one_table {
        flags |= libc::CLONE_FILES;
    }
    // SAFETY: `run_child` gets the pointer that it expects, to what outlives this call; the
    // descriptor goes where it belongs.
    let cloned = unsafe {
        let pidfd = &raw mut (*shared_ptr).pidfd;
        clone(run_child, shared_ptr.cast(), flags, pidfd)
    };
    // This comes before anything of the child is closed or reaped.
    plan.attempt.hide();
    let pid = cloned.map_err(|errno| Failure::At(Step::Clone, errno.raw()))?;
    // SAFETY: the child and the kernel wrote it before the child left our memory; the compiler must
    // not assume that nothing changed behind its back.
    let shared = unsafe { shared_ptr.read_volatile() };
    // SAFETY: the kernel wrote a descriptor, which is open and nobody else's.
    let pidfd = (shared.pidfd != NO_FD).then(|| unsafe { OwnedFd::from_raw_fd(shared.pidfd) });
    let process = Process {
        pid,
        pidfd,
        reported: shared.reported,
    };
    let cancelled = plan.attempt.is_cancelled();
    let failure = match shared.failure {
        None if !cancelled => return Ok(process),
        None => {
            kill(&process);
            Failure::Cancelled
        }
        // It has exited.
        Some(_) if cancelled => Failure::Cancelled,
        Some(failure) => failure,
    };
    bury(&process);
    Err(failure)
}

/// Kills a child that has not been reaped by us, and what it has started.
fn kill(process: &Process) {
    // It may have ended already.
    let _ = match &process.pidfd {
        Some(pidfd) => {
            // Where that is not possible, children are zombies until they are reaped, so that the
            // number is still that of the group.
            if let Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) =
                pidfd::signal_group(pidfd, Signal::KILL)
            {
                let _ = number::signal_group(process.pid, Signal::KILL);
            }
            pidfd::signal(pidfd, Signal::KILL)
        }
        None => {
            let _ = number::signal_group(process.pid, Signal::KILL);
            number::signal(process.pid, Signal::KILL)
        }
    };
}

/// Reaps the child, so that not even a zombie is left.
fn bury(process: &Process) {
    match &process.pidfd {
        Some(pidfd) => drop(pidfd::bury(pidfd)),
        None => number::bury(process.pid),
    }
}

// From here on: the child, on borrowed memory. System calls only.

extern "C" fn run_child(shared: *mut c_void) -> c_int {
    let shared = shared.cast::<Shared<'_>>();
    // SAFETY: the parent passed a pointer to its `Shared` and is suspended.
    unsafe {
        let failure = begin(shared);
        ptr::addr_of_mut!((*shared).failure).write_volatile(Some(failure));
        // It runs no handlers and flushes nothing of the parent's.
        libc::_exit(EXIT_NOT_EXECUTED)
    }
}

/// Returns only if it fails.
///
/// # Safety
/// Only the cloned child may call it, with the `Shared` of the suspended parent.
unsafe fn begin(shared: *mut Shared<'_>) -> Failure {
    // SAFETY: the parent keeps it alive and does not use it meanwhile.
    unsafe {
        let plan = (*shared).plan;
        let target = match ptr::addr_of!((*shared).pidfd).read_volatile() {
            NO_FD => Target::Number(libc::getpid()),
            pidfd => Target::Pidfd(pidfd),
        };
        if !plan.attempt.show(target) {
            return Failure::Cancelled;
        }
        if (*shared).one_table {
            if let Err(errno) = leave_table() {
                return Failure::SharesTable(errno);
            }
        }
        if let Some(guard) = plan.guard {
            ptr::addr_of_mut!((*shared).reported).write_volatile(report_self(guard));
        }
        let (step, errno) = prepare_and_exec(plan, (*shared).parent);
        Failure::At(step, errno)
    }
}

/// Replaces the descriptor table that is shared with the parent by one of its own, which has copies
/// of only the lowest descriptors. If it fails, nothing has changed.
///
/// # Safety
/// Only the cloned child may call it.
unsafe fn leave_table() -> Result<(), i32> {
    let first = reserved::LIMIT as libc::c_uint;
    let flags = libc::CLOSE_RANGE_UNSHARE;
    // SAFETY: what it closes, it closes in the new table.
    match unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// Reports this process to the guard. The group need not exist yet: the guard looks it up when it
/// needs it.
///
/// # Safety
/// Only the cloned child may call it.
unsafe fn report_self(guard: RawFd) -> bool {
    // SAFETY: getpid cannot fail, and its number is ours as long as we live; the descriptor is
    // in the child's own table.
    unsafe {
        let Ok(pidfd) = pidfd::open(libc::getpid()) else {
            return false;
        };
        guard::is_delivered(guard::send_report(guard, pidfd.as_raw_fd()))
    }
}

fn errno() -> i32 {
    Errno::last().raw()
}

/// What happens between clone and exec, in this order. Returns only if it fails.
///
/// # Safety
/// Only the cloned child may call it, all signals blocked.
unsafe fn prepare_and_exec(plan: &Plan<'_>, parent: libc::pid_t) -> (Step, i32) {
    // SAFETY: system calls on values of the plan, which the suspended parent keeps alive.
    let prepared = unsafe {
        reset_signals();
        new_session()
            .and_then(|()| place_streams(plan))
            .and_then(|()| plan.attributes.apply())
            .and_then(|()| bind_to_parent(plan, parent))
            .and_then(|()| close_descriptors())
            .and_then(|()| go_to_directory(plan))
            .map(|()| unblock_signals())
    };
    match prepared {
        // SAFETY: as above.
        Ok(()) => (Step::Exec, unsafe { exec(plan) }),
        Err(failure) => failure,
    }
}

/// Where one of these steps has failed, and why.
type Prepared = Result<(), (Step, i32)>;

/// The result of a system call that returns -1 when it fails.
fn done(step: Step, returned: c_int) -> Prepared {
    if returned == -1 {
        Err((step, errno()))
    } else {
        Ok(())
    }
}

/// Makes this process the leader of a session and a process group, without a terminal. In its parent's
/// session it would be a background job of the parent's terminal, and be stopped when it touches that.
///
/// # Safety
/// Only the cloned child may call it.
unsafe fn new_session() -> Prepared {
    // SAFETY: it touches no memory.
    match unsafe { libc::setsid() } {
        -1 => Err((Step::Prepare, errno())),
        _ => Ok(()),
    }
}

/// # Safety
/// Only the cloned child may call it.
unsafe fn place_streams(plan: &Plan<'_>) -> Prepared {
    // SAFETY: it changes the child's own table.
    let put = |fd, standard| done(Step::Prepare, unsafe { libc::dup2(fd, standard) });
    for (theirs, standard) in [(plan.stdin, 0), (plan.stdout, 1), (plan.stderr, 2)] {
        if let Some(fd) = theirs {
            put(fd, standard)?;
        }
    }
    if plan.stderr_to_stdout {
        put(1, 2)?;
    }
    Ok(())
}

/// From here on the kernel kills this process when its parent ends.
///
/// # Safety
/// Only the cloned child may call it.
unsafe fn bind_to_parent(plan: &Plan<'_>, parent: libc::pid_t) -> Prepared {
    if plan.detached {
        return Ok(());
    }
    // SAFETY: both take and give integers.
    unsafe {
        let bound = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_long);
        done(Step::Prepare, bound)?;
        // The parent may have died before this was set up.
        if libc::getppid() != parent {
            return Err((Step::Prepare, libc::ESRCH));
        }
    }
    Ok(())
}

/// # Safety
/// Only the cloned child may call it.
unsafe fn go_to_directory(plan: &Plan<'_>) -> Prepared {
    match plan.directory {
        // SAFETY: a C string, which the plan keeps alive.
        Some(directory) => done(Step::Directory, unsafe { libc::chdir(directory.as_ptr()) }),
        None => Ok(()),
    }
}

/// # Safety
/// Only the cloned child may call it, once no handlers of the parent's are left.
unsafe fn unblock_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Tries the candidates in order.
///
/// # Safety
/// Only the cloned child may call it.
unsafe fn exec(plan: &Plan<'_>) -> i32 {
    let argv = plan.argv.array.as_ptr();
    let env = plan.env.array.as_ptr();
    let mut result = libc::ENOENT;
    for &file in &plan.files.array {
        if file.is_null() {
            break;
        }
        // SAFETY: `Pointers` holds null-terminated arrays of C strings.
        unsafe { libc::execve(file, argv, env) };
        let errno = Errno::last();
        match plan.tried(errno) {
            Tried::Missing => {}
            Tried::Barred => result = errno.raw(),
            Tried::Failed => return errno.raw(),
        }
    }
    result
}

/// Resets every signal to its default. The parent's handlers would run on the parent's memory, and the
/// program would inherit what the parent ignores.
///
/// # Safety
/// Only the cloned child may call it.
unsafe fn reset_signals() {
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

/// Closes every descriptor above 2, because not all of the VM's own are close-on-exec. This cannot
/// wait for the exec: on a slow disk, changing to the directory and executing the program may take
/// for ever. Meanwhile a pipe of another command that stayed open here would not reach its end.
///
/// # Safety
/// Only the cloned child may call it.
unsafe fn close_descriptors() -> Prepared {
    // SAFETY: it changes the child's own table.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        // SAFETY: as for this function.
        _ => unsafe { hide_listed_descriptors() }.map_err(|errno| (Step::Prepare, errno)),
    }
}

/// Makes every descriptor in the list of open ones close-on-exec, for kernels and sandboxes without
/// `close_range`.
///
/// # Safety
/// Only the cloned child may call it.
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
