//! The standard streams of a command: its ends of pipes and files, and ours.
//!
//! Files are opened here, on the thread that spawns, because opening one can take as long as
//! executing one.

use std::ffi::{CStr, CString};
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, stat};

use super::error::{SpawnError, Step, at};
use crate::errno::Errno;
use crate::pipe::{self, ReadEnd, WriteEnd, above_standard};
use crate::streams::{Stdio, Streams};

/// The permissions of a new file, before the umask.
const NEW_FILE: Mode = Mode::from_bits_truncate(0o666);

/// Their ends, closed here when this is dropped, and ours.
pub(super) struct Ends<'a> {
    pub(super) stdin: Theirs<'a>,
    pub(super) stdout: Theirs<'a>,
    pub(super) stderr: Theirs<'a>,
    pub(super) write_stdin: Option<WriteEnd>,
    pub(super) read_stdout: Option<ReadEnd>,
    pub(super) read_stderr: Option<ReadEnd>,
}

/// The child's end of a stream; `None` where it keeps what it inherits.
pub(super) type Theirs<'a> = Option<TheirFd<'a>>;

pub(super) enum TheirFd<'a> {
    Owned(OwnedFd),
    Borrowed(BorrowedFd<'a>),
}

pub(super) fn raw(theirs: &Theirs<'_>) -> Option<RawFd> {
    theirs.as_ref().map(|fd| match fd {
        TheirFd::Owned(fd) => fd.as_raw_fd(),
        TheirFd::Borrowed(fd) => fd.as_raw_fd(),
    })
}

impl<'a> Ends<'a> {
    pub(super) fn new(streams: &'a Streams) -> Result<Self, SpawnError> {
        let (write_stdin, stdin) = match &streams.stdin {
            Stdio::Pipe => {
                let (ours, theirs) = pipe::input().map_err(at(Step::Stdio))?;
                (Some(ours), Some(TheirFd::Owned(theirs)))
            }
            other => (None, given(other, Step::Input)?),
        };
        let (read_stdout, stdout) = output(&streams.stdout, Step::Output)?;
        let (read_stderr, stderr) = match &streams.stderr {
            Stdio::Inherit => (None, own_terminal().map(TheirFd::Owned)),
            other => output(other, Step::Errors)?,
        };
        Ok(Ends {
            stdin,
            stdout,
            stderr,
            write_stdin,
            read_stdout,
            read_stderr,
        })
    }
}

fn output(stdio: &Stdio, step: Step) -> Result<(Option<ReadEnd>, Theirs<'_>), SpawnError> {
    match stdio {
        Stdio::Pipe => {
            let (ours, theirs) = pipe::output().map_err(at(Step::Stdio))?;
            Ok((Some(ours), Some(TheirFd::Owned(theirs))))
        }
        other => Ok((None, given(other, step)?)),
    }
}

fn given(stdio: &Stdio, step: Step) -> Result<Theirs<'_>, SpawnError> {
    let owned = match stdio {
        Stdio::Pipe | Stdio::Inherit | Stdio::Stdout => None,
        // In the child a standard number is overwritten by another stream, or keeps its
        // close-on-exec flag when it happens to be the right one.
        Stdio::Fd(fd) if pipe::is_standard(fd) => {
            Some(pipe::copy_above_standard(fd.as_fd()).map_err(at(Step::Stdio))?)
        }
        Stdio::Fd(fd) => return Ok(Some(TheirFd::Borrowed(fd.as_fd()))),
        Stdio::Null => Some(null_device().map_err(at(Step::Stdio))?),
        Stdio::Read(_) | Stdio::Write { .. } => open_file(stdio, step)?,
    };
    Ok(owned.map(TheirFd::Owned))
}

/// The file of a stream, if it goes to one. A pipeline opens all files before any of its commands
/// runs, so that opening cannot fail while some run.
pub(crate) fn open_file(stdio: &Stdio, step: Step) -> Result<Option<OwnedFd>, SpawnError> {
    let opened = match stdio {
        Stdio::Read(path) => open_to_read(path),
        Stdio::Write { path, append } => open_to_write(path, *append),
        _ => return Ok(None),
    };
    opened.map(Some).map_err(at(step))
}

fn null_device() -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    above_standard(nix::fcntl::open(c"/dev/null", flags, Mode::empty())?)
}

/// A FIFO that nobody writes to is not waited for: the program sees an empty one.
fn open_to_read(path: &CStr) -> Result<OwnedFd, Errno> {
    let file = open(path, OFlag::O_RDONLY, OFlag::empty())?;
    if kind(&fstat(&file)?) == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    Ok(file)
}

/// A FIFO that nobody reads is not waited for: `ENXIO`.
fn open_to_write(path: &CStr, append: bool) -> Result<OwnedFd, Errno> {
    let how = OFlag::O_WRONLY | OFlag::O_CREAT;
    if append {
        open(path, how, OFlag::O_APPEND)
    } else {
        open(path, how | OFlag::O_TRUNC, OFlag::empty())
    }
}

/// Opens a file for a program, in blocking mode. `status` are the flags that it keeps.
fn open(path: &CStr, how: OFlag, status: OFlag) -> Result<OwnedFd, Errno> {
    // Without O_NOCTTY a terminal becomes that of this process, if it leads a session and has
    // none; when the terminal hangs up, the process is killed.
    let how = how | status | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    // This waits neither for the other end of a FIFO nor for the carrier of a modem.
    let file = match uninterrupted(path, how | OFlag::O_NONBLOCK) {
        // The flag also means not to wait until the holder of a lease gives it up. A program that
        // opened the file itself would wait, so this thread does.
        Err(Errno::EAGAIN) if !is_fifo(path) => uninterrupted(path, how)?,
        result => result?,
    };
    fcntl(&file, FcntlArg::F_SETFL(status))?;
    above_standard(file)
}

fn uninterrupted(path: &CStr, how: OFlag) -> Result<OwnedFd, Errno> {
    loop {
        match nix::fcntl::open(path, how, NEW_FILE) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

fn is_fifo(path: &CStr) -> bool {
    stat(path).is_ok_and(|found| kind(&found) == SFlag::S_IFIFO)
}

fn kind(file: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(file.st_mode) & SFlag::S_IFMT
}

/// This process's standard error, opened anew, if it is a terminal. The VM sets it to non-blocking
/// mode, and every process that inherits it would lose what it writes too fast. `None` if it is not
/// a terminal, or cannot be opened: then it is inherited as it is.
fn own_terminal() -> Option<OwnedFd> {
    let stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return None;
    }
    open(&name_of(stderr.as_fd())?, OFlag::O_WRONLY, OFlag::empty()).ok()
}

#[cfg(target_os = "linux")]
fn name_of(terminal: BorrowedFd<'_>) -> Option<CString> {
    CString::new(format!("/proc/self/fd/{}", terminal.as_raw_fd())).ok()
}

#[cfg(not(target_os = "linux"))]
fn name_of(terminal: BorrowedFd<'_>) -> Option<CString> {
    use std::os::unix::ffi::OsStringExt;
    let name = nix::unistd::ttyname(terminal).ok()?;
    CString::new(name.into_os_string().into_vec()).ok()
}
