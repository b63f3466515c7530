//! Everything that a child needs, prepared before it exists.

use std::ffi::{CStr, CString};
use std::os::fd::{OwnedFd, RawFd};

use super::attempt::Attempt;
use crate::attributes::Attributes;
use crate::command::with_room;
use crate::errno::Errno;

/// Everything that a child needs.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) stdin: Option<RawFd>,
    pub(super) stdout: Option<RawFd>,
    pub(super) stderr: Option<RawFd>,
    pub(super) stderr_to_stdout: bool,
    /// Free to outlive this process.
    pub(super) detached: bool,
    /// The socket on which the guard hears of the new process.
    #[cfg_attr(not(by_clone), expect(dead_code, reason = "it hears of it later"))]
    pub(super) guard: Option<RawFd>,
    pub(super) directory: Option<&'a CStr>,
    #[cfg_attr(
        not(by_clone),
        expect(dead_code, reason = "those that would be used are refused")
    )]
    pub(super) attributes: &'a Attributes,
    #[cfg_attr(by_clone, expect(dead_code, reason = "only pointers to them are used"))]
    pub(super) candidates: &'a [CString],
    #[cfg_attr(
        not(by_clone),
        expect(dead_code, reason = "the C library takes them one by one")
    )]
    pub(super) files: &'a Pointers<'a>,
    /// The candidates come from a search path.
    pub(super) searched: bool,
    pub(super) argv: &'a Pointers<'a>,
    pub(super) env: &'a Pointers<'a>,
    pub(super) attempt: &'a Attempt,
}

/// What trying to execute one candidate means for the others.
pub(super) enum Tried {
    /// There is no such program: the next one is tried.
    Missing,
    /// The next one is tried, and if there is none, this is the error.
    Barred,
    /// This is the error.
    Failed,
}

impl Plan<'_> {
    /// As `execvp` does it. A directory that cannot be searched is passed over. So is a program
    /// that may not be executed, but its error is kept in case there is no other program.
    pub(super) fn tried(&self, errno: Errno) -> Tried {
        match errno.raw() {
            libc::ENOENT => Tried::Missing,
            libc::ELOOP
            | libc::ENAMETOOLONG
            | libc::ENOTDIR
            | libc::ESTALE
            | libc::ENODEV
            | libc::ETIMEDOUT
                if self.searched =>
            {
                Tried::Missing
            }
            libc::EACCES => Tried::Barred,
            _ => Tried::Failed,
        }
    }
}

/// A process that executes the program.
pub(super) struct Process {
    pub(super) pid: libc::pid_t,
    /// Where it was asked for.
    pub(super) pidfd: Option<OwnedFd>,
    /// The guard knows of it, or need not.
    pub(super) reported: bool,
}

/// A null-terminated array of pointers to strings that live as long.
pub(super) struct Pointers<'a> {
    pub(super) array: Vec<*const libc::c_char>,
    pub(super) strings: std::marker::PhantomData<&'a [CString]>,
}

/// Pointers to the strings of one slice, and then of another.
pub(super) fn pointers<'a>(
    first: &'a [CString],
    rest: &'a [CString],
) -> Result<Pointers<'a>, Errno> {
    let mut array = with_room(first.len() + rest.len() + 1)?;
    array.extend(first.iter().chain(rest).map(|string| string.as_ptr()));
    array.push(std::ptr::null());
    Ok(Pointers {
        array,
        strings: std::marker::PhantomData,
    })
}
