//! A write lease on a file: a process that opens or executes the file waits until the lease is
//! released, or until the kernel takes it away after `/proc/sys/fs/lease-break-time` seconds (45 by
//! default).
//!
//! # Safety
//! Unsafe code here passes a descriptor that the borrowed `File` keeps open.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

/// Prints `held`, and holds the lease until standard input ends, but not longer than `longest`.
pub(crate) fn hold(path: &str, longest: Duration) -> io::Result<()> {
    // When somebody wants the file, the kernel sends this signal, which would end the program.
    SigSet::from(Signal::SIGIO).thread_block()?;
    let file = File::options().read(true).write(true).open(path)?;
    take(&file)?;
    let mut out = io::stdout().lock();
    writeln!(out, "held")?;
    out.flush()?;

    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    // In both cases the program ends, and the lease with it.
    let _ = end.recv_timeout(longest);
    Ok(())
}

fn take(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and F_SETLEASE takes a number.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
