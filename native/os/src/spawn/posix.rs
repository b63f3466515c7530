//! `posix_spawn`, which runs no code of ours in the new process. What the C library does there is
//! said before; it answers with the error of the step that failed, but not with the step.
//!
//! The kernel does not bind the program to this process: if that is killed, the program lives on,
//! unless there is a guard.
//!
//! A spawn that is cancelled goes on until the call returns; the child is ended then.
//!
//! # Safety
//! Unsafe code here calls the `posix_spawn` family on objects that it initialised, with strings
//! and arrays that the plan keeps alive.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_int};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::error::{SpawnError, Step, at};
use super::plan::{Plan, Process, Tried};
use crate::errno::Errno;
use crate::kernel::number;
use crate::signal::Signal;

#[cfg(target_os = "freebsd")]
unsafe extern "C" {
    // FreeBSD 13.1 and later.
    fn posix_spawn_file_actions_addchdir_np(
        actions: *mut libc::posix_spawn_file_actions_t,
        directory: *const libc::c_char,
    ) -> c_int;
    fn posix_spawn_file_actions_addclosefrom_np(
        actions: *mut libc::posix_spawn_file_actions_t,
        first: c_int,
    ) -> c_int;
}
#[cfg(not(target_os = "freebsd"))]
use libc::posix_spawn_file_actions_addchdir_np;
#[cfg(target_vendor = "apple")]
unsafe extern "C" {
    fn posix_spawn_file_actions_addinherit_np(
        actions: *mut libc::posix_spawn_file_actions_t,
        fd: c_int,
    ) -> c_int;
}

/// Creates the process and executes the program in it. Returns when the program runs, or when the
/// child has failed and is gone.
pub(super) fn execute(plan: &Plan<'_>, _with_pidfd: bool) -> Result<Process, SpawnError> {
    let attributes = Attributes::new(plan).map_err(at(Step::Prepare))?;
    let actions = Actions::new(plan).map_err(at(Step::Prepare))?;
    let mut result = Errno::ENOENT;
    for candidate in plan.candidates {
        plan.attempt.check()?;
        let file = match plan.directory {
            Some(directory) => within(directory, candidate),
            None => candidate.clone(),
        };
        let errno = match spawn(plan, &file, &attributes, &actions) {
            Ok(pid) => {
                if let Err(cancelled) = plan.attempt.check() {
                    // Nobody has reaped it, so the numbers are its own.
                    let _ = number::signal_group(pid, Signal::KILL);
                    let _ = number::signal(pid, Signal::KILL);
                    number::bury(pid);
                    return Err(cancelled);
                }
                return Ok(Process {
                    pid,
                    pidfd: None,
                    // The guard must not end programs that are meant to outlive this process.
                    reported: plan.detached,
                });
            }
            Err(errno) => errno,
        };
        if let Some(errno) = plan.directory.and_then(unusable) {
            return Err(at(Step::Directory)(errno));
        }
        // There is no process that could do anything.
        if [Errno::EAGAIN, Errno::ENOMEM].contains(&errno) {
            return Err(at(Step::Clone)(errno));
        }
        match plan.tried(errno) {
            Tried::Missing => {}
            Tried::Barred => result = errno,
            Tried::Failed => return Err(at(Step::Exec)(errno)),
        }
    }
    Err(at(Step::Exec)(result))
}

fn spawn(
    plan: &Plan<'_>,
    file: &CStr,
    attributes: &Attributes,
    actions: &Actions,
) -> Result<libc::pid_t, Errno> {
    // Looking is cheaper than creating a process that fails.
    if plan.searched {
        access(file, AccessFlags::F_OK)?;
    }
    let mut pid = 0;
    // SAFETY: both objects are initialised; argv and env are null-terminated arrays of C strings.
    // The declaration wants pointers to mutable strings for historical reasons.
    let failed = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            file.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            plan.argv.array.as_ptr().cast(),
            plan.env.array.as_ptr().cast(),
        )
    };
    done(failed)?;
    Ok(pid)
}

/// These functions return their error.
fn done(errno: c_int) -> Result<(), Errno> {
    match errno {
        0 => Ok(()),
        errno => Err(Errno::new(errno)),
    }
}

/// The path from here to `file` in `directory`. Systems differ in where they look for a relative
/// path when they also change the directory.
fn within(directory: &CStr, file: &CString) -> CString {
    let [directory, relative] =
        [directory, file].map(|path| Path::new(OsStr::from_bytes(path.to_bytes())));
    // An empty name is no file anywhere, and no directory either.
    if relative.is_absolute() || relative.as_os_str().is_empty() {
        return file.clone();
    }
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    // Paths that came from C strings hold no NUL.
    CString::new(absolute.join(relative).as_os_str().as_bytes()).unwrap_or_else(|_| file.clone())
}

/// Why it is impossible to change to `directory`.
fn unusable(directory: &CStr) -> Option<Errno> {
    let path = Path::new(OsStr::from_bytes(directory.to_bytes()));
    match fs::metadata(path) {
        Err(error) => Some(Errno::from_io(error)),
        Ok(found) if !found.is_dir() => Some(Errno::new(libc::ENOTDIR)),
        Ok(_) => access(directory, AccessFlags::X_OK).err().map(Errno::from),
    }
}

/// Makes the program lead a session of its own, and with it a process group; where `posix_spawn`
/// has no such flag, a group alone. The libc crate does not have these numbers.
// glibc 2.26 and later, and musl, <spawn.h>.
#[cfg(target_os = "linux")]
const NEW_SESSION: c_int = 0x80;
// macOS 10.15 and later, <sys/spawn.h>.
#[cfg(target_vendor = "apple")]
const NEW_SESSION: c_int = 0x0400;
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
const NEW_SESSION: c_int = libc::POSIX_SPAWN_SETPGROUP as c_int;

const HAS_SESSIONS: bool = cfg!(any(target_os = "linux", target_vendor = "apple"));

/// What the program starts with: a session of its own, every signal at its default, none blocked.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new(plan: &Plan<'_>) -> Result<Attributes, Errno> {
        let mut new = MaybeUninit::uninit();
        // SAFETY: on success it is initialised.
        let mut attributes = unsafe {
            done(libc::posix_spawnattr_init(new.as_mut_ptr()))?;
            Attributes(new.assume_init())
        };
        let mut flags =
            libc::POSIX_SPAWN_SETSIGDEF as c_int | libc::POSIX_SPAWN_SETSIGMASK as c_int;
        // Where a group is all there is, a program that is to outlive this process makes a session
        // of its own, for which it must not lead a group.
        if HAS_SESSIONS || !plan.detached {
            flags |= NEW_SESSION;
        }
        #[cfg(target_vendor = "apple")]
        {
            flags |= libc::POSIX_SPAWN_CLOEXEC_DEFAULT as c_int;
        }
        let this = &raw mut attributes.0;
        // SAFETY: the attributes are initialised, and so are the sets before they are used. Some
        // systems refuse to change the two signals that cannot be changed.
        unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            done(libc::posix_spawnattr_setsigmask(this, set.as_ptr()))?;
            if cfg!(target_os = "linux") {
                // The C library leaves out of its full set, and would ignore, those it keeps for
                // itself.
                set.as_mut_ptr().write_bytes(u8::MAX, 1);
            } else {
                libc::sigfillset(set.as_mut_ptr());
                libc::sigdelset(set.as_mut_ptr(), libc::SIGKILL);
                libc::sigdelset(set.as_mut_ptr(), libc::SIGSTOP);
            }
            done(libc::posix_spawnattr_setsigdefault(this, set.as_ptr()))?;
            done(libc::posix_spawnattr_setpgroup(this, 0))?;
            done(libc::posix_spawnattr_setflags(this, flags as _))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: it was initialised.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

/// What to do with descriptors, and which directory to change to, in this order.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new(plan: &Plan<'_>) -> Result<Actions, Errno> {
        let mut new = MaybeUninit::uninit();
        // SAFETY: on success it is initialised.
        let mut actions = unsafe {
            done(libc::posix_spawn_file_actions_init(new.as_mut_ptr()))?;
            Actions(new.assume_init())
        };
        for (theirs, standard) in [(plan.stdin, 0), (plan.stdout, 1), (plan.stderr, 2)] {
            match theirs {
                Some(fd) => actions.duplicate(fd, standard)?,
                None if standard == 2 && plan.stderr_to_stdout => actions.duplicate(1, 2)?,
                None => actions.inherit(standard)?,
            }
        }
        actions.hide_descriptors()?;
        if let Some(directory) = plan.directory {
            // SAFETY: the actions are initialised and copy the string.
            done(unsafe {
                posix_spawn_file_actions_addchdir_np(&raw mut actions.0, directory.as_ptr())
            })?;
        }
        Ok(actions)
    }

    fn duplicate(&mut self, from: RawFd, to: RawFd) -> Result<(), Errno> {
        // SAFETY: the actions are initialised.
        done(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, to) })
    }

    #[cfg(target_vendor = "apple")]
    fn inherit(&mut self, standard: RawFd) -> Result<(), Errno> {
        // SAFETY: asks for the flags of a descriptor, which may be closed.
        if unsafe { libc::fcntl(standard, libc::F_GETFD) } == -1 {
            return Ok(());
        }
        // SAFETY: the actions are initialised.
        done(unsafe { posix_spawn_file_actions_addinherit_np(&raw mut self.0, standard) })
    }

    #[cfg(not(target_vendor = "apple"))]
    #[expect(clippy::unused_self, reason = "other systems need to be told")]
    fn inherit(&mut self, _standard: RawFd) -> Result<(), Errno> {
        Ok(())
    }

    /// The attributes say that all are closed.
    #[cfg(target_vendor = "apple")]
    fn hide_descriptors(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    #[cfg(target_os = "freebsd")]
    fn hide_descriptors(&mut self) -> Result<(), Errno> {
        // SAFETY: the actions are initialised.
        done(unsafe { posix_spawn_file_actions_addclosefrom_np(&raw mut self.0, 3) })
    }

    /// Those that are open now. A descriptor that another thread opens meanwhile is close-on-exec, as
    /// is usual. A descriptor that another thread closes meanwhile is skipped.
    #[cfg(not(any(target_vendor = "apple", target_os = "freebsd")))]
    fn hide_descriptors(&mut self) -> Result<(), Errno> {
        for entry in fs::read_dir("/dev/fd").map_err(Errno::from_io)? {
            let name = entry.map_err(Errno::from_io)?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            if let Some(fd) = number.filter(|fd| *fd > 2) {
                // SAFETY: the actions are initialised.
                done(unsafe { libc::posix_spawn_file_actions_addclose(&raw mut self.0, fd) })?;
            }
        }
        Ok(())
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: it was initialised.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}
