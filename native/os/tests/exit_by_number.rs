//! Statuses from `waitpid`, where children are known only by number.

mod common;
mod exits;

use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{
    becomes_readable, descriptors, has_children, is_zombie_of_ours, line, one_at_a_time, quiet_sh,
    sh, soon, spawn, status,
};
use exile_os::Status;
use exile_os::exit::{self, Source};

fn setup() {
    common::sigchld(libc::SIG_DFL);
    assert_eq!(exit::choose(Some(Source::Portable)), Ok(Source::Portable));
}

fn bury_strangers() {
    soon("nobody is left to bury", || {
        exit::sweep();
        !has_children()
    });
}

/// Returns a zombie of this process that other code has yet to wait for.
fn stranger() -> std::process::Child {
    let stranger = std::process::Command::new("true").spawn().unwrap();
    let pid = stranger.id() as libc::pid_t;
    soon("it is a zombie", || is_zombie_of_ours(pid));
    stranger
}

#[test]
fn a_zombie_of_other_code_delays_no_status_and_is_left_to_its_owner() {
    let _one = one_at_a_time();
    setup();
    let mut stranger = stranger();
    for code in 0..20 {
        assert_eq!(
            status(&spawn(&quiet_sh(&format!("exit {code}"))).child),
            Status::Exited(code)
        );
    }
    assert!(stranger.wait().unwrap().success());
    assert!(!has_children());
}

#[test]
fn an_exit_before_the_first_watch_is_reported_to_a_later_watcher() {
    let _one = one_at_a_time();
    setup();
    let before = descriptors();
    for code in 0..20 {
        let spawned = spawn(&quiet_sh(&format!("exit {code}")));
        // The waiter thread has reaped it.
        soon("it is reaped", || !has_children());
        let end = spawned.child.watch().unwrap();
        assert!(becomes_readable(end.as_raw_fd(), Duration::ZERO));
        spawned.child.unwatched();
        assert_eq!(spawned.child.try_status(), Some(Status::Exited(code)));
    }
    assert_eq!(exit::open_count(), 0);
    assert_eq!(descriptors(), before);
}

#[test]
fn a_program_whose_handle_was_dropped_leaves_no_zombie() {
    let _one = one_at_a_time();
    setup();
    let spawned = spawn(&sh("echo ready; cat"));
    line(spawned.stdout.as_ref().unwrap());
    drop(spawned);
    soon("the kernel has forgotten it", || !has_children());
}

#[test]
fn a_lost_status_is_unknown_and_never_a_success() {
    let _one = one_at_a_time();
    setup();
    let spawned = spawn(&sh("cat"));
    // From here on the kernel discards statuses.
    common::sigchld(libc::SIG_IGN);
    drop(spawned.stdin);
    assert_eq!(status(&spawned.child), Status::Unknown);
    assert_eq!(spawned.child.try_status(), Some(Status::Unknown));
    assert_eq!(exit::open_count(), 0);
}
