//! Error numbers of the system, and how return codes become a `Result`. Code that runs between clone
//! and exec converts its own.

/// An error number as the kernel gave it. Numbers without a name are kept, not flattened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// Resource temporarily unavailable: a non-blocking call would have to wait.
    pub const EAGAIN: Errno = Errno(libc::EAGAIN);
    /// Broken pipe: nobody reads what is written.
    pub const EPIPE: Errno = Errno(libc::EPIPE);
    /// Operation canceled.
    pub const ECANCELED: Errno = Errno(libc::ECANCELED);
    /// No such child: it was waited for by someone else, or the kernel reaped it.
    pub const ECHILD: Errno = Errno(libc::ECHILD);
    /// Interrupted by a signal before anything happened.
    pub const EINTR: Errno = Errno(libc::EINTR);
    /// Invalid argument; from newer system calls: this kernel does not know that flag.
    pub const EINVAL: Errno = Errno(libc::EINVAL);
    /// A directory, where a file is wanted.
    pub const EISDIR: Errno = Errno(libc::EISDIR);
    /// The kernel does not know this system call.
    pub const ENOSYS: Errno = Errno(libc::ENOSYS);
    /// Not permitted, to this user or in this sandbox.
    pub const EPERM: Errno = Errno(libc::EPERM);
    /// This process has too many files open.
    pub const EMFILE: Errno = Errno(libc::EMFILE);
    /// The system has too many files open.
    pub const ENFILE: Errno = Errno(libc::ENFILE);
    /// No such file or directory.
    pub const ENOENT: Errno = Errno(libc::ENOENT);
    /// A request that this descriptor, or this kernel, does not know.
    pub const ENOTTY: Errno = Errno(libc::ENOTTY);
    /// Out of memory.
    pub const ENOMEM: Errno = Errno(libc::ENOMEM);
    /// No such process: it has ended.
    pub const ESRCH: Errno = Errno(libc::ESRCH);
    /// The file is open for writing and cannot be executed at this moment.
    pub const ETXTBSY: Errno = Errno(libc::ETXTBSY);

    /// The error number `raw`.
    pub const fn new(raw: i32) -> Self {
        Errno(raw)
    }

    /// The number of the last failed call of this thread.
    pub fn last() -> Self {
        Errno(nix::errno::Errno::last_raw())
    }

    /// The number behind an error of the standard library.
    pub(crate) fn from_io(error: std::io::Error) -> Self {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The number itself.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The POSIX name in small letters (`"enoent"`), or `None` for a number without one.
    pub fn name(self) -> Option<String> {
        match nix::errno::Errno::from_raw(self.0) {
            nix::errno::Errno::UnknownErrno => None,
            known => Some(format!("{known:?}").to_ascii_lowercase()),
        }
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Self {
        Errno(errno as i32)
    }
}

/// Return values that say "failed, look at errno" by being -1.
pub(crate) trait ReturnCode: Copy {
    fn failed(self) -> bool;
}

macro_rules! return_code {
    ($($t:ty)*) => { $(impl ReturnCode for $t { fn failed(self) -> bool { self == -1 } })* };
}
return_code!(i32 i64 isize);

/// Turns the return code of a system call into a `Result`.
pub(crate) fn check<T: ReturnCode>(ret: T) -> Result<T, Errno> {
    if ret.failed() {
        Err(Errno::last())
    } else {
        Ok(ret)
    }
}

/// Like [`check`], but calls again as long as a signal interrupts the call.
pub(crate) fn retry<T: ReturnCode>(mut call: impl FnMut() -> T) -> Result<T, Errno> {
    loop {
        match check(call()) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_number_has_its_posix_name() {
        assert_eq!(Errno::new(libc::ENOENT).name().as_deref(), Some("enoent"));
        assert_eq!(Errno::new(libc::E2BIG).name().as_deref(), Some("e2big"));
    }

    #[test]
    fn an_unknown_number_is_kept() {
        let odd = Errno::new(99_999);
        assert_eq!(odd.name(), None);
        assert_eq!(odd.raw(), 99_999);
    }
}
