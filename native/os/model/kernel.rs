//! The kernel of the models: processes in a table behind one lock. So at every system call the
//! checker may let another thread go first.
//!
//! A pidfd is a real descriptor, of `/dev/null`. So the real kernel says whether it is open, and
//! reuses its number once it is closed.
//!
//! Anything that would harm another process fails at once: using a descriptor that is closed, or
//! sending a signal to a pid that is free.
//!
//! # Safety
//! Unsafe code here asks whether a descriptor is open, or readable.
#![allow(unsafe_code)]

#[cfg(by_clone)]
#[path = "../src/kernel/clone.rs"]
pub(crate) mod clone;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::errno::Errno;
use crate::exit::{self, Source, Watch};
use crate::life::child::Child;
use crate::pipe::ReadEnd;
use crate::shared;
use crate::signal::Signal;
use crate::status::Status;
use crate::sync::{Mutex, MutexGuard};

/// The state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    Zombie,
    /// Reaped; a pidfd may keep its status.
    Reaped,
}

#[derive(Debug)]
struct Process {
    pid: libc::pid_t,
    /// Its pidfd, if it has one.
    fd: Option<RawFd>,
    state: State,
    status: Status,
    /// The pidfd of a reaped process returns its status. It begins to do so a moment after the end.
    told: bool,
    /// It has left the group that it led.
    left: bool,
    /// There are others in that group, which stay until they are killed.
    others: bool,
    /// If it ends once a descriptor of ours is closed: that descriptor, and its status then.
    hangs_on: Option<(RawFd, Status)>,
    /// It may not be signalled.
    forbidden: bool,
    /// It hangs in the kernel, and ends only some time after it was killed.
    hangs: bool,
    /// The signals that were sent to it.
    got: Vec<i32>,
    /// The signals that were sent to the group that it led.
    group_got: Vec<i32>,
    /// The signals of both kinds that have reached it.
    received: Vec<i32>,
}

struct World {
    processes: Vec<Process>,
    /// The kernel cannot signal a group by a pidfd.
    old: bool,
}

shared! { static WORLD: Mutex<World> = Mutex::new(World { processes: Vec::new(), old: false }); }

fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap()
}

impl World {
    /// The process behind a pidfd, which must be open.
    fn of(&mut self, pidfd: &OwnedFd) -> &mut Process {
        let fd = pidfd.as_raw_fd();
        assert!(is_open(fd), "descriptor {fd} is closed");
        let mut processes = self.processes.iter_mut().rev();
        processes.find(|process| process.fd == Some(fd)).unwrap()
    }

    /// The process that has this pid, or had it last.
    fn numbered(&mut self, pid: libc::pid_t) -> &mut Process {
        let mut processes = self.processes.iter_mut().rev();
        processes.find(|process| process.pid == pid).unwrap()
    }

    fn start(&mut self, pid: libc::pid_t, fd: Option<RawFd>) {
        let taken = self
            .processes
            .iter()
            .any(|process| process.pid == pid && process.state != State::Reaped);
        assert!(!taken, "pid {pid} is taken");
        self.processes.push(Process {
            pid,
            fd,
            state: State::Runs,
            status: Status::Unknown,
            told: false,
            left: false,
            others: false,
            hangs_on: None,
            forbidden: false,
            hangs: false,
            got: Vec::new(),
            group_got: Vec::new(),
            received: Vec::new(),
        });
    }
}

/// Whether a descriptor is open.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer, and the descriptor may be closed.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// From here on no group can be signalled by a pidfd, as before Linux 6.9.
pub fn grow_old() {
    world().old = true;
}

/// A child as `spawn` makes it, and the number of its exit fd.
pub fn child(pid: libc::pid_t) -> (Arc<Child>, RawFd) {
    let watch = Watch::new().unwrap();
    let pidfd = watch
        .wants_pidfd()
        .then(|| OwnedFd::from(File::open("/dev/null").unwrap()));
    world().start(pid, pidfd.as_ref().map(OwnedFd::as_raw_fd));
    let (end, announcer) = watch.begin(pid, pidfd).unwrap();
    let fd = end.as_raw_fd();
    (Child::new(pid, end, announcer), fd)
}

/// A child that Exile did not spawn.
pub fn stranger(pid: libc::pid_t) {
    world().start(pid, None);
}

/// A pipe whose reading end is ours.
pub fn pipe() -> (ReadEnd, OwnedFd) {
    crate::pipe::output().unwrap()
}

/// Ends a process, unless it has ended. Where SIGCHLD is ignored, it is reaped in the same moment.
pub fn end(pid: libc::pid_t, status: Status) {
    world().numbered(pid).end(status);
}

/// From here on there are others in the group of a process.
pub fn have_others(pid: libc::pid_t) {
    world().numbered(pid).others = true;
}

/// Whether there are still others in the group of a process.
pub fn has_others(pid: libc::pid_t) -> bool {
    world().numbered(pid).others
}

/// Makes a process leave the group that it led.
pub fn leave_group(pid: libc::pid_t) {
    world().numbered(pid).left = true;
}

/// Whether a process has left the group that it led.
pub fn has_left(pid: libc::pid_t) -> bool {
    world().numbered(pid).left
}

/// From here on a process ends when `fd`, which is ours, is closed. A real program does so if it
/// reads to the end of its input, or writes when nobody reads.
pub fn hang_on(pid: libc::pid_t, fd: RawFd, status: Status) {
    world().numbered(pid).hangs_on = Some((fd, status));
}

/// Ends such a process now, if the descriptor is closed.
pub fn hang_up(pid: libc::pid_t) {
    let mut world = world();
    let process = world.numbered(pid);
    if let Some((_, status)) = process.hangs_on.filter(|(fd, _)| !is_open(*fd)) {
        process.end(status);
    }
}

/// From here on a process hangs in the kernel: when it is killed, it ends only in [`wake_up`].
pub fn hang(pid: libc::pid_t) {
    world().numbered(pid).hangs = true;
}

/// Makes the kernel let such a process go. If it was killed, it ends now.
pub fn wake_up(pid: libc::pid_t) {
    let mut world = world();
    let process = world.numbered(pid);
    process.hangs = false;
    if process.received.contains(&libc::SIGKILL) {
        process.end(KILLED);
    }
}

/// Sets whether signals to a process are refused from here on.
pub fn forbid(pid: libc::pid_t, forbidden: bool) {
    world().numbered(pid).forbidden = forbidden;
}

/// Whether a wait for an exit fd would return.
pub(crate) fn is_readable(fd: RawFd) -> bool {
    let world = world();
    let mut processes = world.processes.iter().rev();
    if let Some(process) = processes.find(|process| process.fd == Some(fd)) {
        return process.state != State::Runs;
    }
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: poll writes only into the one structure.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

/// From here on the pidfd of a process that was reaped returns its status.
pub fn tell(pid: libc::pid_t) {
    world().numbered(pid).told = true;
}

/// Whether a process with this pid runs, or waits to be reaped.
pub fn is_there(pid: libc::pid_t) -> bool {
    world().numbered(pid).state != State::Reaped
}

/// The signals that were sent to the process itself.
pub fn signals(pid: libc::pid_t) -> Vec<i32> {
    world().numbered(pid).got.clone()
}

/// The signals that reached the process, itself or through its group.
pub fn received(pid: libc::pid_t) -> Vec<i32> {
    world().numbered(pid).received.clone()
}

/// The signals that were sent to its group.
pub fn group_signals(pid: libc::pid_t) -> Vec<i32> {
    world().numbered(pid).group_got.clone()
}

/// Reaps a process. Other code in this process does the same when it waits for any child.
pub fn bury(pid: libc::pid_t) {
    let _ = world().numbered(pid).reap();
}

/// How a process ends when it is killed.
pub const KILLED: Status = Status::Signaled {
    signal: libc::SIGKILL as u8,
    core: false,
};

impl Process {
    fn end(&mut self, status: Status) {
        if self.state == State::Runs {
            self.status = status;
            self.state = match exit::source() {
                Source::Wait | Source::Portable => State::Zombie,
                Source::Pidfd => State::Reaped,
            };
        }
    }

    fn receive(&mut self, signal: Signal) {
        if signal != Signal::NONE && self.state == State::Runs {
            self.received.push(signal.number());
        }
        if signal == Signal::KILL && !self.hangs {
            self.end(KILLED);
        }
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Errno> {
        if self.forbidden {
            return Err(Errno::EPERM);
        }
        if signal != Signal::NONE {
            self.got.push(signal.number());
        }
        self.receive(signal);
        Ok(())
    }

    /// Signals the group that it leads, or led. A zombie counts as a member.
    fn signal_group(&mut self, signal: Signal) -> Result<(), Errno> {
        let is_member = self.state != State::Reaped && !self.left;
        if !is_member && !self.others {
            return Err(Errno::ESRCH);
        }
        if self.forbidden && !self.others {
            return Err(Errno::EPERM);
        }
        if signal != Signal::NONE {
            self.group_got.push(signal.number());
        }
        if signal == Signal::KILL {
            self.others = false;
        }
        if is_member && !self.forbidden {
            self.receive(signal);
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<Option<Status>, Errno> {
        match self.state {
            State::Runs => Ok(None),
            State::Zombie => {
                self.state = State::Reaped;
                Ok(Some(self.status))
            }
            State::Reaped => Err(Errno::ECHILD),
        }
    }

    fn is_zombie(&self) -> Result<bool, Errno> {
        match self.state {
            State::Runs => Ok(false),
            State::Zombie => Ok(true),
            State::Reaped => Err(Errno::ECHILD),
        }
    }
}

pub(crate) mod pidfd {
    //! Processes by pidfd.

    use super::*;

    pub(crate) fn reap(pidfd: &OwnedFd) -> Result<Option<Status>, Errno> {
        world().of(pidfd).reap()
    }

    pub(crate) fn is_zombie(pidfd: &OwnedFd) -> Result<bool, Errno> {
        world().of(pidfd).is_zombie()
    }

    pub(crate) fn kept_status(pidfd: &OwnedFd) -> Option<Status> {
        let mut world = world();
        let process = world.of(pidfd);
        process.told.then_some(process.status)
    }

    pub(crate) fn signal(pidfd: &OwnedFd, signal: Signal) -> Result<(), Errno> {
        let mut world = world();
        let process = world.of(pidfd);
        if process.state == State::Reaped {
            // With `Source::Pidfd`, the kernel reaps, at any moment. With the others we reap, and
            // must not use the process after that.
            assert_eq!(exit::source(), Source::Pidfd, "signalled after its end");
            return Err(Errno::ESRCH);
        }
        process.signal(signal)
    }

    pub(crate) fn signal_group(pidfd: &OwnedFd, signal: Signal) -> Result<(), Errno> {
        let mut world = world();
        if world.old {
            return Err(Errno::EINVAL);
        }
        world.of(pidfd).signal_group(signal)
    }

    pub(crate) fn bury(_pidfd: &OwnedFd) -> Result<(), Errno> {
        unreachable!("models do not probe")
    }

    pub(crate) fn ask_status(_pidfd: &OwnedFd) -> Result<Option<Status>, Errno> {
        unreachable!("models do not probe")
    }

    pub(crate) fn signal_raw(_pidfd: RawFd, _signal: Signal) -> Result<(), Errno> {
        unreachable!("models do not cancel spawns")
    }

    pub(crate) fn open(_pid: libc::pid_t) -> Result<OwnedFd, Errno> {
        unreachable!("models have no guard")
    }
}

pub(crate) mod number {
    //! Processes by pid.

    use super::*;

    pub(crate) fn reap(pid: libc::pid_t) -> Result<Option<Status>, Errno> {
        world().numbered(pid).reap()
    }

    pub(crate) fn is_zombie(pid: libc::pid_t) -> Result<bool, Errno> {
        world().numbered(pid).is_zombie()
    }

    pub(crate) fn some_zombie() -> Result<Option<libc::pid_t>, Errno> {
        let world = world();
        let mut processes = world.processes.iter();
        let zombie = processes.find(|process| process.state == State::Zombie);
        Ok(zombie.map(|process| process.pid))
    }

    pub(crate) fn signal(pid: libc::pid_t, signal: Signal) -> Result<(), Errno> {
        let mut world = world();
        let process = world.numbered(pid);
        assert_ne!(process.state, State::Reaped, "pid {pid} is free");
        process.signal(signal)
    }

    pub(crate) fn group_of(pid: libc::pid_t) -> Result<libc::pid_t, Errno> {
        let mut world = world();
        let process = world.numbered(pid);
        if process.state == State::Reaped {
            // With `Source::Pidfd`, the kernel reaps, at any moment. With the others we reap, and
            // must not use the process after that.
            assert_eq!(exit::source(), Source::Pidfd, "pid {pid} is free");
            return Err(Errno::ESRCH);
        }
        Ok(if process.left { pid + 1 } else { pid })
    }

    pub(crate) fn signal_group(leader: libc::pid_t, signal: Signal) -> Result<(), Errno> {
        let mut world = world();
        let process = world.numbered(leader);
        assert_ne!(process.state, State::Reaped, "pid {leader} is free");
        process.signal_group(signal)
    }

    pub(crate) fn bury(_pid: libc::pid_t) {
        unreachable!("models do not spawn")
    }

    pub(crate) fn next_zombie() -> Result<Option<libc::pid_t>, Errno> {
        unreachable!("models have their own thread that waits")
    }
}

pub(crate) mod held {
    //! Pipes between processes.

    pub(crate) fn input_is_held(_pid: libc::pid_t) -> Option<bool> {
        unreachable!("models have no pipelines")
    }
}
