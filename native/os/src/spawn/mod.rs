//! Runs a command. Everything that allocates, or that can fail because of its input, happens here,
//! before there is a process. The files beside this one create the process.
//!
//! | file | what | where |
//! | --- | --- | --- |
//! | `error` | the steps of a spawn, and why it failed | |
//! | `plan` | what a child needs | |
//! | `attempt` | a spawn that another thread can cancel | |
//! | `pool` | the threads that spawn | |
//! | `stdio` | pipes and files for the standard streams | |
//! | `linux` | `clone`, and code of ours until the program is executed | Linux |
//! | `reserved` | low descriptor numbers, with which a clone costs the same however many are open | Linux |
//! | `posix` | `posix_spawn`, and no code of ours | macOS, FreeBSD; Linux with `--cfg exile_portable`, for tests |

mod attempt;
mod error;
#[cfg(by_clone)]
pub(crate) mod linux;
mod plan;
pub mod pool;
#[cfg(not(by_clone))]
mod posix;
#[cfg(by_clone)]
mod reserved;
mod stdio;

#[cfg(by_clone)]
use linux::execute;
#[cfg(not(by_clone))]
use posix::execute;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use attempt::Attempt;
pub(crate) use error::at;
pub use error::{SpawnError, Step};
pub(crate) use stdio::open_file;

use crate::command::Command;
use crate::errno::Errno;
use crate::exit;
use crate::guard;
use crate::kernel::number;
use crate::life::child::{Child, kill};
use crate::pipe::{ReadEnd, WriteEnd};
use crate::signal::Signal;
use crate::streams::{Stdio, Streams};
use plan::{Plan, pointers};
use stdio::{Ends, raw};

/// A program's file that is still open for writing was mostly written a moment ago, and a program
/// between its fork and its exec has inherited the descriptor. So it helps to wait briefly.
const BUSY_TRIES: u32 = 6;
const BUSY_WAIT: Duration = Duration::from_millis(1);

/// How long to wait for commands that were killed. The kernel needs far less, unless a process
/// hangs in a system call; then no limit would be enough.
const END_PATIENCE: Duration = Duration::from_secs(1);

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

/// Reserves what all spawns share: low descriptor numbers. To be called early, while many are free.
/// Otherwise the first spawn does it.
pub fn reserve() {
    #[cfg(by_clone)]
    reserved::reserve();
}

/// Runs `command` with these `streams`, unless another thread cancels the `attempt`.
///
/// # Caveats
/// The program is killed when the *thread* that called this function ends, so call it from threads
/// that live as long as the process. It blocks until the program has been executed, or could not
/// be.
pub fn spawn(
    command: &Command,
    streams: &Streams,
    attempt: &Attempt,
) -> Result<Spawned, SpawnError> {
    attempt.check()?;
    command.attributes.check()?;
    let ends = Ends::new(streams)?;
    let no_room = at(Step::Clone);
    let argv = pointers(std::slice::from_ref(command.arg0()), &command.arguments);
    let argv = argv.map_err(&no_room)?;
    let env = pointers(&[], &command.env).map_err(&no_room)?;
    let candidates = command
        .candidates
        .as_ref()
        .map_err(|errno| no_room(*errno))?;
    let files = pointers(&[], candidates).map_err(&no_room)?;
    let guard = if command.detached {
        None
    } else {
        guard::socket()
    };
    let plan = Plan {
        stdin: raw(&ends.stdin),
        stdout: raw(&ends.stdout),
        stderr: raw(&ends.stderr),
        stderr_to_stdout: matches!(streams.stderr, Stdio::Stdout),
        detached: command.detached,
        guard: guard.as_ref().map(|socket| socket.as_raw_fd()),
        directory: command.directory.as_deref(),
        attributes: &command.attributes,
        candidates,
        files: &files,
        searched: command.searched,
        argv: &argv,
        env: &env,
        attempt,
    };
    let (child, reported) = make(&plan)?;
    if !reported {
        guard::report(&child);
    }
    if let Err(cancelled) = attempt.check() {
        discard(&[child]);
        return Err(cancelled);
    }
    Ok(Spawned {
        child,
        stdin: ends.write_stdin,
        stdout: ends.read_stdout,
        stderr: ends.read_stderr,
    })
}

/// The child, and whether the guard knows of it.
fn make(plan: &Plan<'_>) -> Result<(Arc<Child>, bool), SpawnError> {
    let mut wait = BUSY_WAIT;
    let mut tries = 0;
    let mut reported = true;
    loop {
        plan.attempt.check()?;
        let result = exit::while_registering(|| {
            let watch = exit::Watch::new().map_err(at(Step::Clone))?;
            let process = execute(plan, watch.wants_pidfd())?;
            reported = process.reported;
            match watch.begin(process.pid, process.pidfd) {
                Ok((end, announcer)) => Ok(Child::new(process.pid, end, announcer)),
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
            result => return Ok((result?, reported)),
        }
    }
}

/// Kills the programs of a spawn that failed, with their groups, and waits until they are gone. A
/// killed process ends at once, unless it hangs in the kernel.
pub fn discard(children: &[Arc<Child>]) {
    // All are claimed first. The end of one closes the input of another, which may end because of
    // that. Its group must end with it all the same.
    for child in children {
        child.claim();
    }
    children.iter().for_each(|child| kill(child));
    let deadline = Instant::now() + END_PATIENCE;
    for child in children {
        if let Some(end) = child.end() {
            wait_until_readable(end.as_fd(), deadline);
        }
        // Takes the status of the zombie, and closes the descriptor that announced the end.
        let _ = child.try_status();
    }
}

fn wait_until_readable(fd: BorrowedFd<'_>, deadline: Instant) {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if poll(&mut fds, left) != Err(nix::Error::EINTR) {
            return;
        }
    }
}
