//! Old kernels and strict sandboxes: whichever newer system call is denied, commands are still
//! spawned, watched, signalled and ended, and nothing is left behind.
#![cfg(not(exile_portable))]

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use common::{
    alone, descriptors, has_children, line, quiet_sh, refuse, sh, sigchld, soon, spawn, status,
};
use exile_os::exit::{self, Source};
use exile_os::life::keeper;
use exile_os::{Errno, Signal, Status, Teardown, guard};

/// A system call, and optionally an argument as index and value: only calls with it are denied.
type Call = (libc::c_long, Option<(u32, u32)>);

/// A clone that returns a pidfd.
const CLONE_WITH_PIDFD: Call = clone_with(libc::CLONE_PIDFD);
const CLONE_WITH_PIDFD_AND_FILES: Call = clone_with(libc::CLONE_PIDFD | libc::CLONE_FILES);

/// The flags are the first argument on every architecture except s390.
const fn clone_with(flags: libc::c_int) -> Call {
    let flags = flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    (libc::SYS_clone, Some((0, flags as u32)))
}

const WAIT_BY_PIDFD: Call = (libc::SYS_waitid, Some((0, libc::P_PIDFD)));
const SIGNAL_BY_PIDFD: Call = (libc::SYS_pidfd_send_signal, None);
/// With `PIDFD_SIGNAL_PROCESS_GROUP`.
const SIGNAL_GROUP_BY_PIDFD: Call = (libc::SYS_pidfd_send_signal, Some((3, 1 << 2)));
const STATUS_BY_PIDFD: Call = (libc::SYS_ioctl, Some((1, libc::PIDFD_GET_INFO as u32)));
const OPEN_PIDFD: Call = (libc::SYS_pidfd_open, None);
const CLOSE_RANGE: Call = (libc::SYS_close_range, None);
const LEAVE_TABLE: Call = (libc::SYS_close_range, Some((2, libc::CLOSE_RANGE_UNSHARE)));

const EVERYTHING: [Call; 7] = [
    CLONE_WITH_PIDFD,
    CLONE_WITH_PIDFD_AND_FILES,
    WAIT_BY_PIDFD,
    SIGNAL_BY_PIDFD,
    STATUS_BY_PIDFD,
    OPEN_PIDFD,
    CLOSE_RANGE,
];

fn lives(pid: &str) -> bool {
    // A zombie that its new parent has not reaped yet has exited, too.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn signaled(signal: Signal) -> Status {
    Status::Signaled {
        signal: signal.number() as u8,
        core: false,
    }
}

/// Ends a process by a teardown and waits until the teardown is over.
fn end(child: &std::sync::Arc<exile_os::Child>, wait: Duration) {
    let teardown = Teardown {
        grace: Duration::ZERO,
        steps: vec![(Signal::TERM, wait)],
    };
    assert!(common::end_by(child, &teardown));
    common::no_lives();
}

/// Checks what must work with every source of statuses.
fn all_is_as_ever() {
    for code in [0, 7, 255] {
        let spawned = spawn(&quiet_sh(&format!("exit {code}")));
        assert_eq!(status(&spawned.child), Status::Exited(code));
    }
    let error = common::try_spawn(&common::command("/nonexistent", &[])).unwrap_err();
    assert_eq!(error.errno.raw(), libc::ENOENT);

    // Only the standard streams are inherited; the shell opens the directory to list it.
    let listed = spawn(&sh("cd /proc/$$/fd && echo *"));
    assert_eq!(line(listed.stdout.as_ref().unwrap()), "0 1 2 3");
    assert_eq!(status(&listed.child), Status::Exited(0));

    let signalled = spawn(&sh("echo ready; exec cat"));
    line(signalled.stdout.as_ref().unwrap());
    assert_eq!(signalled.child.try_status(), None);
    assert_eq!(signalled.child.signal(Signal::TERM), Ok(()));
    assert_eq!(status(&signalled.child), signaled(Signal::TERM));
    assert_eq!(signalled.child.signal(Signal::TERM), Err(Errno::ESRCH));

    // The group ends with its leader, including a member that ignores the first signal.
    for script in [
        "sleep 1000 & echo $!; wait",
        "(trap '' TERM; exec sleep 1000) & echo $!; exec sleep 1000",
        "trap '' TERM; sleep 1000 & echo $!; while :; do read x; done",
    ] {
        let leader = spawn(&sh(script));
        let member = line(leader.stdout.as_ref().unwrap());
        assert!(lives(&member));
        end(&leader.child, Duration::from_millis(50));
        assert!(leader.child.try_status().is_some());
        soon("the group is gone", || !lives(&member));
    }

    // A program that exits by itself leaves its background children running.
    let left = spawn(&sh("sleep 1000 >/dev/null 2>&1 & echo $!; exit 3"));
    let member = line(left.stdout.as_ref().unwrap());
    assert_eq!(status(&left.child), Status::Exited(3));
    assert!(lives(&member));
    let pid = nix::unistd::Pid::from_raw(member.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
}

/// Denies `calls` in this process and checks that statuses come from `expected` and all works.
fn all_is_as_ever_without(calls: &[Call], errno: libc::c_int, expected: Source) {
    sigchld(libc::SIG_IGN);
    for &(call, argument) in calls {
        refuse(call, argument, errno);
    }
    // A source that this kernel does not have cannot be expected.
    let expected = match expected {
        Source::Pidfd if !common::kernel_is_at_least(6, 15) => Source::Wait,
        expected => expected,
    };
    assert_eq!(exit::choose(None), Ok(expected));
    if expected != Source::Pidfd {
        sigchld(libc::SIG_DFL);
    }
    keeper::start().unwrap();
    // The first spawn starts every other thread.
    assert_eq!(status(&spawn(&quiet_sh("exit 1")).child), Status::Exited(1));
    let before = descriptors();
    all_is_as_ever();
    assert_eq!(descriptors(), before);
    assert_eq!(exit::open_count(), 0);
    soon("the kernel has forgotten all children", || !has_children());
}

/// Defines a test for each way to deny the calls. A filter cannot be removed, so each test runs in
/// its own process.
macro_rules! without {
    ($($name:ident: $calls:expr, $errno:ident => $expected:ident;)*) => {
        $(#[test] fn $name() {
            alone(stringify!($name), || {
                all_is_as_ever_without(&$calls, libc::$errno, Source::$expected);
            });
        })*
    };
}

without! {
    clone_gives_no_pidfd_enosys: [CLONE_WITH_PIDFD, CLONE_WITH_PIDFD_AND_FILES], ENOSYS => Portable;
    clone_gives_no_pidfd_eperm: [CLONE_WITH_PIDFD, CLONE_WITH_PIDFD_AND_FILES], EPERM => Portable;
    clone_gives_no_pidfd_einval: [CLONE_WITH_PIDFD, CLONE_WITH_PIDFD_AND_FILES], EINVAL => Portable;
    waitid_takes_no_pidfd_enosys: [WAIT_BY_PIDFD], ENOSYS => Portable;
    waitid_takes_no_pidfd_eperm: [WAIT_BY_PIDFD], EPERM => Portable;
    waitid_takes_no_pidfd_einval: [WAIT_BY_PIDFD], EINVAL => Portable;
    no_signal_by_pidfd_enosys: [SIGNAL_BY_PIDFD], ENOSYS => Portable;
    no_signal_by_pidfd_eperm: [SIGNAL_BY_PIDFD], EPERM => Portable;
    no_signal_to_a_group_by_pidfd_enosys: [SIGNAL_GROUP_BY_PIDFD], ENOSYS => Wait;
    no_signal_to_a_group_by_pidfd_eperm: [SIGNAL_GROUP_BY_PIDFD], EPERM => Wait;
    no_signal_to_a_group_by_pidfd_einval: [SIGNAL_GROUP_BY_PIDFD], EINVAL => Wait;
    no_status_by_pidfd_enosys: [STATUS_BY_PIDFD], ENOSYS => Wait;
    no_status_by_pidfd_eperm: [STATUS_BY_PIDFD], EPERM => Wait;
    no_status_by_pidfd_enotty: [STATUS_BY_PIDFD], ENOTTY => Wait;
    no_pidfd_is_opened_enosys: [OPEN_PIDFD], ENOSYS => Pidfd;
    no_pidfd_is_opened_eperm: [OPEN_PIDFD], EPERM => Pidfd;
    no_close_range_enosys: [CLOSE_RANGE], ENOSYS => Pidfd;
    no_close_range_eperm: [CLOSE_RANGE], EPERM => Pidfd;
    a_shared_table_cannot_be_left_einval: [LEAVE_TABLE], EINVAL => Pidfd;
    a_shared_table_cannot_be_left_eacces: [LEAVE_TABLE], EACCES => Pidfd;
    no_memory_for_a_table_enomem: [LEAVE_TABLE], ENOMEM => Pidfd;
    nothing_newer_than_the_oldest_kernel_enosys: EVERYTHING, ENOSYS => Portable;
    nothing_newer_than_the_oldest_kernel_eperm: EVERYTHING, EPERM => Portable;
}

#[test]
fn the_parent_reports_a_command_that_cannot_open_its_own_pidfd() {
    alone(
        "the_parent_reports_a_command_that_cannot_open_its_own_pidfd",
        || {
            common::choose_source();
            refuse(libc::SYS_pidfd_open, None, libc::EPERM);
            let guard = guard::Turn::take().connect().unwrap();
            let spawned = spawn(&sh("cat"));
            let reported = guard::take_report(guard.as_fd()).unwrap().unwrap();
            reported.kill_group();
            assert_eq!(status(&spawned.child), signaled(Signal::KILL));
        },
    );
}

#[test]
fn without_pidfds_a_guard_that_gets_no_reports_affects_no_command() {
    alone(
        "without_pidfds_a_guard_that_gets_no_reports_affects_no_command",
        || {
            let guard = guard::Turn::take().connect().unwrap();
            all_is_as_ever_without(&EVERYTHING, libc::ENOSYS, Source::Portable);
            assert!(guard::take_report(guard.as_fd()).is_err());
        },
    );
}
