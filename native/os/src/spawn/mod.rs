//! How to run a command. All that can fail on input, or allocates, happens here and before there
//! is a process; the files beside this one make it.
//!
//! | file | how | where |
//! | --- | --- | --- |
//! | `linux` | `clone`, and code of ours until the program is executed | Linux |
//! | `posix` | `posix_spawn`, and no code of ours | macOS, FreeBSD; Linux with `--cfg exile_portable`, for tests |

#[cfg(all(target_os = "linux", not(exile_portable)))]
pub(crate) mod linux;
pub mod pool;
#[cfg(not(all(target_os = "linux", not(exile_portable))))]
mod posix;

#[cfg(all(target_os = "linux", not(exile_portable)))]
use linux::execute;
#[cfg(not(all(target_os = "linux", not(exile_portable))))]
use posix::execute;

use std::ffi::{CStr, CString};
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::life::child::Child;
use crate::command::{Command, Stdio};
use crate::errno::Errno;
use crate::exit;
use crate::guard;
use crate::kernel::number;
use crate::pipe::{self, ReadEnd, WriteEnd};
use crate::signal::Signal;

/// A file that somebody still holds open for writing is mostly one that was written a moment
/// ago and is inherited by a program between its fork and its exec: waiting helps, briefly.
const BUSY_TRIES: u32 = 6;
const BUSY_WAIT: Duration = Duration::from_millis(1);

/// A running command and our ends of its pipes.
#[derive(Debug)]
pub struct Spawned {
    /// The program.
    pub child: Arc<Child>,
    /// Writes to its standard input, if that is a pipe.
    pub stdin: Option<WriteEnd>,
    /// Reads its standard output, if that is a pipe.
    pub stdout: Option<ReadEnd>,
    /// Reads its standard error, if that is a pipe.
    pub stderr: Option<ReadEnd>,
}

/// What a spawn was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the pipes or opening the null device.
    Stdio,
    /// Opening the file that standard input comes from.
    Input,
    /// Opening the file that standard output goes to.
    Output,
    /// Making the process.
    Clone,
    /// Preparing the new process: its group, its bond to this one, its descriptors.
    Prepare,
    /// Going to the directory.
    Directory,
    /// Executing the program.
    Exec,
    /// Having an event loop watch for its end; for those who do.
    Watch,
}

/// Why a command does not run. Nothing of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// What was being done.
    pub step: Step,
    /// What the system said.
    pub errno: Errno,
}

fn at(step: Step) -> impl Fn(Errno) -> SpawnError {
    move |errno| SpawnError { step, errno }
}

/// Runs `command`.
///
/// # Caveats
/// The program is killed when the *thread* that called ends: call from threads that live as long
/// as the process. Blocks until the program is executed or has failed to.
/// Shim.
#[derive(Default)]
pub struct Attempt;
impl Attempt {
    pub fn new() -> Attempt { Attempt }
    pub fn cancel(&self) {}
}
pub fn spawn(command: &Command, _attempt: &Attempt) -> Result<Spawned, SpawnError> {
    let stdio = StdioPlan::new(command).map_err(at(Step::Stdio))?;
    let argv = pointers(&command.argv);
    let env = pointers(&command.env);
    let candidates = pointers(&command.candidates);
    let guard = if command.detached {
        None
    } else {
        guard::socket()
    };
    let plan = Plan {
        stdin: raw(&stdio.stdin),
        stdout: raw(&stdio.stdout),
        stderr: raw(&stdio.stderr),
        stderr_to_stdout: matches!(command.stderr, Stdio::Stdout),
        detached: command.detached,
        guard: guard.as_ref().map(|socket| socket.as_raw_fd()),
        directory: command.directory.as_deref(),
        candidates: &candidates,
        searched: command.searched,
        argv: &argv,
        env: &env,
    };
    let mut wait = BUSY_WAIT;
    let mut tries = 0;
    let mut reported = true;
    let child = loop {
        let result = exit::while_registering(|| {
            let watch = exit::Watch::new().map_err(at(Step::Clone))?;
            let process = execute(&plan, watch.wants_pidfd())?;
            reported = process.reported;
            match watch.begin(process.pid, process.pidfd) {
                Ok((end, bell)) => Ok(Child::new(process.pid, end, bell)),
                Err(errno) => {
                    let _ = number::signal(process.pid, Signal::KILL);
                    number::bury(process.pid);
                    Err(at(Step::Watch)(errno))
                }
            }
        });
        match result {
            Err(error) if error.errno == Errno::ETXTBSY && tries < BUSY_TRIES => {
                std::thread::sleep(wait);
                wait *= 2;
                tries += 1;
            }
            result => break result?,
        }
    };
    if !reported {
        guard::report(&child);
    }
    Ok(Spawned {
        child,
        stdin: stdio.write_stdin,
        stdout: stdio.read_stdout,
        stderr: stdio.read_stderr,
    })
}

/// All that a child needs.
struct Plan<'a> {
    stdin: Option<RawFd>,
    stdout: Option<RawFd>,
    stderr: Option<RawFd>,
    stderr_to_stdout: bool,
    /// In a session of its own, and free to outlive this process.
    detached: bool,
    /// Where the guard wants to hear of the new process.
    #[cfg_attr(
        not(all(target_os = "linux", not(exile_portable))),
        expect(dead_code, reason = "it hears of it later")
    )]
    guard: Option<RawFd>,
    directory: Option<&'a CStr>,
    candidates: &'a Pointers<'a>,
    /// The candidates come from a search path.
    searched: bool,
    argv: &'a Pointers<'a>,
    env: &'a Pointers<'a>,
}

/// A process that executes the program.
struct Process {
    pid: libc::pid_t,
    /// Where it was asked for.
    pidfd: Option<OwnedFd>,
    /// The guard knows of it, or need not.
    reported: bool,
}

/// A null-terminated array of pointers into `strings`.
struct Pointers<'a> {
    array: Vec<*const libc::c_char>,
    #[cfg_attr(
        all(target_os = "linux", not(exile_portable)),
        expect(dead_code, reason = "only what they point to is used")
    )]
    strings: &'a [CString],
}

fn pointers(strings: &[CString]) -> Pointers<'_> {
    let array = strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    Pointers { array, strings }
}

/// Their ends, closed here when the plan is dropped, and ours.
struct StdioPlan<'a> {
    stdin: Theirs<'a>,
    stdout: Theirs<'a>,
    stderr: Theirs<'a>,
    write_stdin: Option<WriteEnd>,
    read_stdout: Option<ReadEnd>,
    read_stderr: Option<ReadEnd>,
}

/// The child's end of a stream; `None` where it keeps what it inherits.
type Theirs<'a> = Option<TheirFd<'a>>;

enum TheirFd<'a> {
    Owned(OwnedFd),
    Borrowed(BorrowedFd<'a>),
}

fn raw(theirs: &Theirs<'_>) -> Option<RawFd> {
    theirs.as_ref().map(|fd| match fd {
        TheirFd::Owned(fd) => fd.as_raw_fd(),
        TheirFd::Borrowed(fd) => fd.as_raw_fd(),
    })
}

impl<'a> StdioPlan<'a> {
    fn new(command: &'a Command) -> Result<Self, Errno> {
        let (write_stdin, stdin) = match &command.stdin {
            Stdio::Pipe => {
                let (ours, theirs) = pipe::input()?;
                (Some(ours), Some(TheirFd::Owned(theirs)))
            }
            other => (None, given(other)?),
        };
        let (read_stdout, stdout) = output(&command.stdout)?;
        let (read_stderr, stderr) = output(&command.stderr)?;
        Ok(StdioPlan {
            stdin,
            stdout,
            stderr,
            write_stdin,
            read_stdout,
            read_stderr,
        })
    }
}

fn output(stdio: &Stdio) -> Result<(Option<ReadEnd>, Theirs<'_>), Errno> {
    match stdio {
        Stdio::Pipe => {
            let (ours, theirs) = pipe::output()?;
            Ok((Some(ours), Some(TheirFd::Owned(theirs))))
        }
        other => Ok((None, given(other)?)),
    }
}

fn given(stdio: &Stdio) -> Result<Theirs<'_>, Errno> {
    match stdio {
        Stdio::Pipe | Stdio::Inherit | Stdio::Stdout => Ok(None),
        Stdio::Read(path) => match Stdio::read_from(std::os::unix::ffi::OsStrExt::from_bytes(path.as_bytes()))? {
            Stdio::Fd(fd) => Ok(Some(TheirFd::Owned(fd))),
            _ => Ok(None),
        },
        Stdio::Write { path, append } => match Stdio::write_to(std::os::unix::ffi::OsStrExt::from_bytes(path.as_bytes()), *append)? {
            Stdio::Fd(fd) => Ok(Some(TheirFd::Owned(fd))),
            _ => Ok(None),
        },
        // In the child a standard number is overwritten by another stream, or keeps its
        // close-on-exec flag when it happens to be the right one.
        Stdio::Fd(fd) if pipe::is_standard(fd) => {
            let copy = pipe::copy_above_standard(fd.as_fd())?;
            Ok(Some(TheirFd::Owned(copy)))
        }
        Stdio::Fd(fd) => Ok(Some(TheirFd::Borrowed(fd.as_fd()))),
        Stdio::Null => {
            let null = OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map_err(Errno::from_io)?;
            Ok(Some(TheirFd::Owned(pipe::above_standard(null.into())?)))
        }
    }
}
