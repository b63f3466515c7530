//! Where reports contain numbers, the guard watches a process before it can be reaped.
#![cfg(exile_portable)]

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use common::{
    PATIENCE, a_zombie_of_ours, becomes_readable, command, eventually, has_children,
    is_zombie_of_ours, line, one_at_a_time, quiet_sh, sh, sigchld, spawn, status,
};
use exile_os::{Signal, Status, Stdio, exit, guard};

fn killed() -> Status {
    Status::Signaled {
        signal: Signal::KILL.number() as u8,
        core: false,
    }
}

/// Acts as the guard while `body` spawns: takes one report after `first` has returned.
fn with_guard<T: Send>(
    first: impl FnOnce(),
    body: impl FnOnce() -> T + Send,
) -> (T, guard::Process) {
    sigchld(libc::SIG_DFL);
    let socket = guard::Turn::take().connect().unwrap();
    let results = std::thread::scope(|scope| {
        let spawning = scope.spawn(body);
        assert!(becomes_readable(socket.as_raw_fd(), PATIENCE));
        first();
        let process = guard::take_report(socket.as_fd()).unwrap().unwrap();
        (spawning.join().unwrap(), process)
    });
    guard::disconnect();
    results
}

#[test]
fn a_command_that_exits_early_is_not_reaped_before_the_guard_watches_it() {
    let _one = one_at_a_time();
    let (theirs, ours) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let command = command("/bin/sh", &["-c", "read line; exit 5"]).stdio(
        Stdio::Fd(theirs),
        Stdio::Null,
        Stdio::Null,
    );
    let ended = || {
        drop(ours);
        let pid = eventually("it has ended", a_zombie_of_ours);
        // Neither the thread that waits nor the sweep reaps it.
        exit::sweep();
        std::thread::sleep(Duration::from_millis(50));
        assert!(is_zombie_of_ours(pid));
    };
    let (spawned, process) = with_guard(ended, || spawn(&command));
    assert!(becomes_readable(
        process.as_fd().as_raw_fd(),
        Duration::ZERO
    ));
    assert_eq!(status(&spawned.child), Status::Exited(5));
    assert!(!has_children());
    // Its number may belong to another process by now, which must not be signalled.
    process.kill_group();
}

#[test]
fn the_guard_kills_the_group_of_a_command_that_runs() {
    let _one = one_at_a_time();
    let (spawned, process) = with_guard(|| {}, || spawn(&sh("sleep 1000 & echo ready; wait")));
    assert_eq!(line(spawned.stdout.as_ref().unwrap()), "ready");
    assert!(!becomes_readable(
        process.as_fd().as_raw_fd(),
        Duration::ZERO
    ));
    process.kill_group();
    assert_eq!(status(&spawned.child), killed());
    // End-of-file shows that the other member, which held the pipe open, was killed too.
    assert!(common::read_to_end(spawned.stdout.as_ref().unwrap()).is_empty());
}

#[test]
fn a_guard_that_is_dead_or_does_not_answer_affects_no_command() {
    let _one = one_at_a_time();
    sigchld(libc::SIG_DFL);
    let deaf = guard::Turn::take().connect().unwrap();
    let spawned = spawn(&sh("echo ready; cat; exit 6"));
    assert_eq!(line(spawned.stdout.as_ref().unwrap()), "ready");
    drop(spawned.stdin);
    assert_eq!(status(&spawned.child), Status::Exited(6));
    drop(deaf);
    assert_eq!(status(&spawn(&quiet_sh("exit 7")).child), Status::Exited(7));
    guard::disconnect();
    assert!(!has_children());
}
