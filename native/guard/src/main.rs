//! The guard: one idle program per VM. It holds a pidfd of every running command, and when the
//! VM is killed it kills their process groups, so that what the commands started is gone, too.
//!
//! Standard input is the socket on which commands report themselves, the argument is the process
//! id of the VM. The guard lives in a session of its own and ignores what a terminal or a service
//! manager sends to everybody: it ends when the VM has ended and its work is done.
//!
//! A command that ends by itself is forgotten, and what it left in the background is left alone.
//! A command that was killed is remembered for a moment: the kernel kills commands together with
//! the VM, and may tell of their end before it tells of the VM's.
//!
//! # Safety
//! Unsafe code here takes the ownership of descriptors that the kernel has just given, and sets
//! signals to be ignored.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use exile_os::{Status, guard};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Tells those who do not run this file what it is.
const MARK: &str = concat!("exile_guard version ", env!("CARGO_PKG_VERSION"), ";");

/// How long reports wait on the socket: a program that starts many commands wakes the guard
/// twenty times a second, not for each of them.
const REST: Duration = Duration::from_millis(50);

/// How long a killed command is remembered. The VM's end follows within milliseconds.
const REMEMBER: Duration = Duration::from_secs(2);

/// How long to wait, when the VM is dead, for commands that were about to report themselves.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// A command that has reported itself.
struct Guarded {
    pidfd: OwnedFd,
    /// When it was seen to have been killed.
    killed: Option<Instant>,
}

fn main() -> ExitCode {
    black_box(MARK); // or else nothing needs it, and it is left out
    ignore_signals();
    allow_many_descriptors();
    let stdin = std::io::stdin();
    let Some(vm) = std::env::args().nth(1).and_then(|pid| pid.parse().ok()) else {
        return ExitCode::FAILURE;
    };
    let mut commands = Vec::new();
    // Without a pidfd the VM is dead already.
    if let Some(vm) = guard::parent(vm) {
        watch(&vm, stdin.as_fd(), &mut commands);
    }
    take_last_reports(stdin.as_fd(), &mut commands);
    for command in &commands {
        guard::kill_group(&command.pidfd);
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
fn watch(vm: &OwnedFd, socket: BorrowedFd<'_>, commands: &mut Vec<Guarded>) {
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
                .map(|command| readable(command.pidfd.as_fd())),
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
        // Interrupted or not, everything is looked at.
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
            None if ended.next() == Some(&true) => match guard::status(&command.pidfd) {
                Some(Status::Signaled { signal, .. }) if signal == libc::SIGKILL as u8 => {
                    command.killed = Some(now);
                    true
                }
                Some(_) => false,
                // This kernel does not tell, or not yet: it may have been killed.
                None => {
                    command.killed = Some(now);
                    true
                }
            },
            None => true,
        });
        if !resting && ready.last() == Some(&true) {
            while let Ok(Some(command)) = take_report(socket) {
                commands.push(command);
            }
            rest_until = Instant::now() + REST;
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
            Ok(Some(command)) => commands.push(command),
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

/// The next report; `None` at the end of the socket.
fn take_report(socket: BorrowedFd<'_>) -> Result<Option<Guarded>, Errno> {
    loop {
        let mut data = [0; 1];
        let mut slices = [IoSliceMut::new(&mut data)];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let report = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        if report.bytes == 0 {
            return Ok(None);
        }
        for message in report.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = message {
                if let Some(fd) = fds.first() {
                    // SAFETY: the kernel has just given us this descriptor.
                    let pidfd = unsafe { OwnedFd::from_raw_fd(*fd) };
                    return Ok(Some(Guarded {
                        pidfd,
                        killed: None,
                    }));
                }
            }
        }
        // No room for its descriptor: this command goes unguarded, the others must not.
    }
}
