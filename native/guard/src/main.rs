//! The guard: one idle program per VM. It watches every running command, and when the VM is killed
//! it kills their process groups, so that what the commands started is gone, too.
//!
//! Standard input is the socket on which commands report themselves, the argument is the process
//! id of the VM. The guard lives in a session of its own and ignores what a terminal or a service
//! manager sends to everybody: it ends when the VM has ended and its work is done.
//!
//! A command that ends by itself is forgotten, and what it left in the background is left alone.
//! A command that was killed is remembered for a moment: the kernel kills commands together with
//! the VM, and may report their ends before it reports the VM's.
//!
//! # Safety
//! Unsafe code here sets signals to be ignored.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use exile_os::guard::{self, Process, take_report};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};

/// Says what this file is to code that reads it without running it.
const MARK: &str = concat!("exile_guard version ", env!("CARGO_PKG_VERSION"), ";");

/// How long a killed command is remembered. The VM's end follows within milliseconds.
const REMEMBER: Duration = Duration::from_secs(2);

/// How long to wait, when the VM is dead, for commands that were about to report themselves.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// A command that has reported itself.
struct Guarded {
    process: Process,
    /// When it was seen to have been killed.
    killed: Option<Instant>,
}

impl Guarded {
    fn new(process: Process) -> Guarded {
        Guarded {
            process,
            killed: None,
        }
    }
}

fn main() -> ExitCode {
    black_box(MARK); // or else nothing needs it, and it is left out
    ignore_signals();
    // Where the VM cannot start us as the leader of a session; where it can, this is refused.
    let _ = nix::unistd::setsid();
    allow_many_descriptors();
    let stdin = std::io::stdin();
    let Some(vm) = std::env::args().nth(1).and_then(|pid| pid.parse().ok()) else {
        return ExitCode::FAILURE;
    };
    let mut commands = Vec::new();
    // If it does not exist, it is already dead.
    if let Some(vm) = Process::parent(vm) {
        watch(&vm, stdin.as_fd(), &mut commands);
    }
    take_last_reports(stdin.as_fd(), &mut commands);
    for command in &commands {
        command.process.kill_group();
    }
    ExitCode::SUCCESS
}

fn ignore_signals() {
    for ignored in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGPIPE,
    ] {
        // SAFETY: ignoring runs no handler. Refusals would concern SIGKILL and SIGSTOP only.
        let _ = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
}

/// Every running command takes a descriptor.
fn allow_many_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Keeps `commands` up to date until the VM has ended.
fn watch(vm: &Process, socket: BorrowedFd<'_>, commands: &mut Vec<Guarded>) {
    let mut rest_until = Instant::now();
    loop {
        let now = Instant::now();
        let resting = now < rest_until;
        let running = |command: &&Guarded| command.killed.is_none();
        let mut fds = vec![readable(vm.as_fd())];
        fds.extend(
            commands
                .iter()
                .filter(running)
                .map(|command| readable(command.process.as_fd())),
        );
        if !resting {
            fds.push(readable(socket));
        }
        let forget = commands.iter().filter_map(|command| command.killed).min();
        let due = [
            resting.then_some(rest_until),
            forget.map(|killed| killed + REMEMBER),
        ];
        let due = due.into_iter().flatten().min();
        // Interrupted or not, look at everything.
        let _ = poll(
            &mut fds,
            due.map_or(PollTimeout::NONE, |due| timeout(due - now)),
        );

        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        if ready.first() == Some(&true) {
            return;
        }
        let mut ended = ready.iter().skip(1);
        let now = Instant::now();
        commands.retain_mut(|command| match command.killed {
            Some(killed) => now < killed + REMEMBER,
            None if ended.next() == Some(&true) => {
                let killed = command.process.may_have_been_killed();
                command.killed = killed.then_some(now);
                killed
            }
            None => true,
        });
        if !resting && ready.last() == Some(&true) {
            while let Ok(Some(process)) = take_report(socket) {
                commands.push(Guarded::new(process));
            }
            rest_until = Instant::now() + guard::REST;
        }
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

fn timeout(left: Duration) -> PollTimeout {
    let milliseconds = left.as_millis().saturating_add(1);
    milliseconds.try_into().unwrap_or(PollTimeout::MAX)
}

/// The VM is dead; a command that was just being spawned may hold the socket and report itself
/// still. End-of-file says that none does.
fn take_last_reports(socket: BorrowedFd<'_>, commands: &mut Vec<Guarded>) {
    let deadline = Instant::now() + LAST_REPORTS;
    loop {
        match take_report(socket) {
            Ok(Some(process)) => commands.push(Guarded::new(process)),
            Ok(None) => return,
            Err(Errno::EAGAIN) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                let _ = poll(&mut [readable(socket)], timeout(left));
            }
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
