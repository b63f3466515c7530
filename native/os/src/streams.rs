//! Where the standard streams of a command go.

use std::ffi::CString;
use std::os::fd::OwnedFd;

/// One of a program's standard streams.
#[derive(Debug, Default)]
pub enum Stdio {
    /// A new pipe; our end comes back in [`Spawned`](crate::Spawned).
    #[default]
    Pipe,
    /// The null device.
    Null,
    /// This process's own stream. Standard error is opened anew where it is a terminal, so that
    /// the program does not share the flags that the VM sets.
    Inherit,
    /// An open file or pipe end of somebody else.
    Fd(OwnedFd),
    /// A file, opened for reading by the thread that spawns. A FIFO that nobody writes to is not
    /// waited for: the program sees an empty one.
    Read(CString),
    /// A file, opened for writing by the thread that spawns: made if it is missing. A FIFO that
    /// nobody reads is not waited for: `ENXIO`.
    Write {
        /// Its name, relative to the directory of this process.
        path: CString,
        /// The program writes at its end; otherwise the file is emptied.
        append: bool,
    },
    /// For standard error only: wherever standard output goes.
    Stdout,
}

/// All three.
#[derive(Debug)]
pub struct Streams {
    /// What the program reads.
    pub stdin: Stdio,
    /// What it writes.
    pub stdout: Stdio,
    /// Its errors.
    pub stderr: Stdio,
}

impl Default for Streams {
    /// Pipes for input and output, this process's own for errors.
    fn default() -> Streams {
        Streams {
            stdin: Stdio::Pipe,
            stdout: Stdio::Pipe,
            stderr: Stdio::Inherit,
        }
    }
}
