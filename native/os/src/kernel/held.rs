//! Whether anybody still holds the writing end of the pipe that a program reads from.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// For the standard input of a process; `None` where the system does not say.
pub(crate) fn input_is_held(pid: libc::pid_t) -> Option<bool> {
    let path = format!("/proc/{pid}/fd/0");
    // Anything else is not opened, which could take for ever or do something to a device.
    match std::fs::read_link(&path) {
        Ok(name) if name.as_os_str().as_bytes().starts_with(b"pipe:") => {}
        Ok(_) => return Some(false),
        Err(_) => return None,
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits());
    let input = options.open(path).ok()?;
    if !input
        .metadata()
        .is_ok_and(|found| found.file_type().is_fifo())
    {
        return Some(false);
    }
    let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    let seen = fds[0].revents().unwrap_or(PollFlags::empty());
    Some(!seen.contains(PollFlags::POLLHUP))
}
