//! Pipes between this process and a program: our ends are non-blocking, theirs are not.
//!
//! Every descriptor is close-on-exec from the start and has a number above 2, so that handing the
//! ends to a child as its standard streams never overwrites one of them.
//!
//! # Safety
//! Unsafe code here passes descriptors that the borrowed `OwnedFd`s keep open, and buffers whose
//! length it takes from the same slice as the pointer.
#![allow(unsafe_code)]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::errno::{Errno, check, retry};

/// What Linux gives a new pipe, in bytes.
pub const DEFAULT_CAPACITY: usize = 64 * 1024;

/// What a busy pipe may grow to, in bytes: larger ones measured no faster.
pub const GROWN_CAPACITY: usize = 256 * 1024;

/// The kernel takes at most this many slices in one `writev`.
pub const MAX_SLICES: usize = 1024;

/// The first descriptor that is not a standard stream.
const FIRST_FREE: RawFd = 3;

/// Our end of a pipe a program writes to.
#[derive(Debug)]
pub struct ReadEnd(OwnedFd);

/// Our end of a pipe a program reads from.
#[derive(Debug)]
pub struct WriteEnd(OwnedFd);

impl ReadEnd {
    /// Our end of a new pipe.
    pub(crate) fn new(end: OwnedFd) -> Result<ReadEnd, Errno> {
        set_nonblocking(&end)?;
        Ok(ReadEnd(end))
    }

    /// Reads what is there, at most the length of `buffer`, and returns the part of it that was
    /// filled: `None` when that would block, an empty slice when nobody holds the other end any
    /// more.
    pub fn read<'b>(&self, buffer: &'b mut [MaybeUninit<u8>]) -> Result<Option<&'b [u8]>, Errno> {
        // SAFETY: the buffer is writable for its length.
        let count = unsafe { self.read_raw(buffer.as_mut_ptr().cast(), buffer.len()) }?;
        // SAFETY: the kernel filled the first `count` bytes.
        Ok(count.map(|count| unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), count) }))
    }

    /// The same into initialised memory. Returns the number of bytes.
    pub fn read_into(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        // SAFETY: the buffer is writable for its length.
        unsafe { self.read_raw(buffer.as_mut_ptr(), buffer.len()) }
    }

    /// # Safety
    /// `start` is writable for `length` bytes.
    unsafe fn read_raw(&self, start: *mut u8, length: usize) -> Result<Option<usize>, Errno> {
        // SAFETY: as demanded; the descriptor is open while self lives.
        would_block(|| unsafe { libc::read(self.0.as_raw_fd(), start.cast(), length) })
    }
}

impl WriteEnd {
    /// Our end of a new pipe.
    pub(crate) fn new(end: OwnedFd) -> Result<WriteEnd, Errno> {
        set_nonblocking(&end)?;
        Ok(WriteEnd(end))
    }

    /// Writes as much as fits of the first [`MAX_SLICES`] slices. `None`: nothing fits.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> Result<Option<usize>, Errno> {
        let count = slices.len().min(MAX_SLICES) as libc::c_int;
        // SAFETY: the descriptor is open while self lives; `IoSlice` has the layout of `iovec`,
        // and `count` is at most the number of slices.
        would_block(|| unsafe { libc::writev(self.0.as_raw_fd(), slices.as_ptr().cast(), count) })
    }
}

impl AsRawFd for ReadEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for ReadEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for WriteEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn would_block(call: impl FnMut() -> isize) -> Result<Option<usize>, Errno> {
    match retry(call) {
        Ok(count) => Ok(Some(count.unsigned_abs())),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Lets a pipe hold `bytes`. Fails with `EPERM` when the user has used up the pipe memory of the
/// system. That does no harm: the pipe stays as it is. On other systems than Linux pipes grow by
/// themselves, and this fails with `ENOSYS`.
pub fn set_capacity(pipe: &impl AsRawFd, bytes: usize) -> Result<usize, Errno> {
    #[cfg(target_os = "linux")]
    {
        let bytes = libc::c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open while `pipe` lives; F_SETPIPE_SZ takes an int.
        let set = check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
        Ok(set.unsigned_abs() as usize)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (pipe, bytes);
        Err(Errno::ENOSYS)
    }
}

/// How much pipe memory a user without privileges may have, in bytes, if the system says so.
pub fn memory_limit() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").ok()?;
    let pages: usize = pages.trim().parse().ok()?;
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    // `None` means that there is no limit.
    (pages > 0).then(|| pages.saturating_mul(usize::try_from(size).unwrap_or(DEFAULT_PAGE)))
}

/// The size of a page where the system does not say, in bytes.
const DEFAULT_PAGE: usize = 4096;

/// A pipe whose reading end is ours.
pub(crate) fn output() -> Result<(ReadEnd, OwnedFd), Errno> {
    let (read, write) = pair()?;
    Ok((ReadEnd::new(read)?, write))
}

/// A pipe whose writing end is ours.
pub(crate) fn input() -> Result<(WriteEnd, OwnedFd), Errno> {
    let (read, write) = pair()?;
    Ok((WriteEnd::new(write)?, read))
}

/// The ends of a new pipe, to read from and to write to.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    #[cfg(not(target_vendor = "apple"))]
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // This takes two steps where the system has no single call. A spawn of ours that comes between
    // them closes what it does not hand on.
    #[cfg(target_vendor = "apple")]
    let (read, write) = {
        let ends = nix::unistd::pipe()?;
        close_on_exec(&ends.0)?;
        close_on_exec(&ends.1)?;
        ends
    };
    Ok((above_standard(read)?, above_standard(write)?))
}

/// For descriptors that were created without that flag.
#[cfg(target_vendor = "apple")]
pub(crate) fn close_on_exec(fd: &OwnedFd) -> Result<(), Errno> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Moves a descriptor that got the number of a missing standard stream out of the way.
pub(crate) fn above_standard(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if is_standard(&fd) {
        copy_above_standard(fd.as_fd())
    } else {
        Ok(fd)
    }
}

/// Whether a descriptor has the number of a standard stream.
pub(crate) fn is_standard(fd: &OwnedFd) -> bool {
    fd.as_raw_fd() < FIRST_FREE
}

pub(crate) fn copy_above_standard(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: `fd` is open; F_DUPFD_CLOEXEC takes the least number wanted.
    let copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FIRST_FREE) })?;
    // SAFETY: fcntl succeeded, so `copy` is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn set_nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: the descriptor is open while borrowed; F_SETFL takes flags. A new pipe has no
    // other status flags that could be lost.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn read(end: &ReadEnd, max: usize) -> Result<Option<Vec<u8>>, Errno> {
        let mut buffer = vec![MaybeUninit::uninit(); max];
        Ok(end.read(&mut buffer)?.map(<[u8]>::to_vec))
    }

    #[test]
    fn reading_an_empty_pipe_would_block_and_a_closed_one_ends() {
        let (ours, theirs) = output().unwrap();
        assert_eq!(read(&ours, 10), Ok(None));
        std::fs::File::from(theirs).write_all(b"hello").unwrap();
        assert_eq!(read(&ours, 3), Ok(Some(b"hel".to_vec())));
        assert_eq!(read(&ours, 3), Ok(Some(b"lo".to_vec())));
        assert_eq!(read(&ours, 3), Ok(Some(vec![])));
    }

    #[test]
    fn writing_gathers_slices_until_the_pipe_is_full() {
        let (ours, theirs) = input().unwrap();
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")];
        assert_eq!(ours.write(&slices), Ok(Some(4)));
        let big = vec![0; DEFAULT_CAPACITY];
        let written = ours.write(&[IoSlice::new(&big)]).unwrap().unwrap();
        assert!(written < big.len());
        assert_eq!(ours.write(&[IoSlice::new(&big)]), Ok(None));
        let mut start = [0; 4];
        std::fs::File::from(theirs).read_exact(&mut start).unwrap();
        assert_eq!(&start, b"abcd");
    }

    #[test]
    fn more_slices_than_the_kernel_takes_are_written_in_part() {
        let (ours, _theirs) = input().unwrap();
        let slices = vec![IoSlice::new(b"x"); MAX_SLICES + 5];
        assert_eq!(ours.write(&slices), Ok(Some(MAX_SLICES)));
    }

    #[test]
    fn a_pipe_grows() {
        let (ours, _theirs) = output().unwrap();
        assert!(set_capacity(&ours, GROWN_CAPACITY).unwrap() >= GROWN_CAPACITY);
    }
}
