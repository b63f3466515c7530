//! A stopped guard delays one spawn for a second and no later ones. When it continues, it receives
//! all reports. The test plays the guard: while stopped, it takes no reports.

mod common;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use common::{
    PATIENCE, alone, becomes_readable, command, has_children, limit, set_limit, spawn, status,
};
use exile_os::exit::{self, Source};
use exile_os::life::keeper;
use exile_os::{Signal, Spawned, Status, Stdio, guard};

/// The longest time that a report waits, with some margin for a busy machine.
const ABOUT_A_SECOND: Duration = Duration::from_millis(1900);

/// How often to check whether all processes have exited.
const MOMENT: Duration = Duration::from_millis(20);

/// A spawn that takes less than this did not wait for the guard.
const NO_WAIT: Duration = Duration::from_millis(500);

fn idle() -> Spawned {
    spawn(&command("sleep", &["1000"]).stdio(Stdio::Null, Stdio::Null, Stdio::Null))
}

/// Spawns a process and returns how long that took.
fn timed() -> (Spawned, Duration) {
    let start = Instant::now();
    (idle(), start.elapsed())
}

fn set_up() -> OwnedFd {
    common::sigchld(libc::SIG_DFL);
    keeper::start().unwrap();
    // The first spawn starts every other thread.
    let first = idle();
    first.child.signal(Signal::KILL).unwrap();
    status(&first.child);
    guard::Turn::take().connect().unwrap()
}

/// Spawns until a report has to wait. The report of the last process has waited.
fn spawn_until_one_waits() -> Vec<Spawned> {
    let mut spawned = Vec::new();
    loop {
        let (one, time) = timed();
        spawned.push(one);
        assert!(time < ABOUT_A_SECOND, "{time:?}");
        if time > NO_WAIT {
            return spawned;
        }
        assert!(spawned.len() < 2000, "reports never wait");
    }
}

/// Acts as the continued guard: takes reports and kills the reported processes until all have
/// exited.
fn go_on(guard: &OwnedFd, spawned: &[Spawned]) {
    let killed = Status::Signaled {
        signal: libc::SIGKILL as u8,
        core: false,
    };
    let deadline = Instant::now() + PATIENCE;
    let runs = |spawned: &&Spawned| spawned.child.try_status().is_none();
    while spawned.iter().any(|one| runs(&one)) {
        match guard::take_report(guard.as_fd()) {
            Ok(Some(process)) => process.kill_group(),
            Ok(None) => panic!("the socket is closed"),
            Err(nix::errno::Errno::EAGAIN) => {
                let left = spawned.iter().filter(runs).count();
                assert!(Instant::now() < deadline, "{left} are not reported");
                becomes_readable(guard.as_raw_fd(), MOMENT);
            }
            Err(errno) => panic!("{errno}"),
        }
    }
    for spawned in spawned {
        assert_eq!(status(&spawned.child), killed);
    }
}

/// Kills the processes that still run.
fn end(spawned: &[Spawned]) {
    for spawned in spawned {
        let _ = spawned.child.signal(Signal::KILL);
        status(&spawned.child);
    }
    assert!(!has_children());
}

/// Asserts that the guard receives the report of a new process without delay.
fn hears_at_once(guard: &OwnedFd) {
    std::thread::scope(|scope| {
        let spawning = scope.spawn(timed);
        assert!(becomes_readable(guard.as_raw_fd(), PATIENCE));
        guard::take_report(guard.as_fd())
            .unwrap()
            .unwrap()
            .kill_group();
        let (spawned, time) = spawning.join().unwrap();
        assert!(time < NO_WAIT, "{time:?}");
        status(&spawned.child);
    });
}

#[test]
fn a_stopped_guard_delays_one_spawn_and_gets_all_reports_when_it_continues() {
    alone(
        "a_stopped_guard_delays_one_spawn_and_gets_all_reports_when_it_continues",
        || {
            let guard = set_up();
            // The guard stops and continues twice.
            for _ in 0..2 {
                let mut spawned = spawn_until_one_waits();
                for _ in 0..50 {
                    let (one, time) = timed();
                    assert!(time < NO_WAIT, "{time:?}");
                    spawned.push(one);
                }
                go_on(&guard, &spawned);
                // The reports left in the socket are of processes that have exited.
                while becomes_readable(guard.as_raw_fd(), 2 * NO_WAIT) {
                    drop(guard::take_report(guard.as_fd()).unwrap());
                }
                hears_at_once(&guard);
            }
            guard::disconnect();
            assert!(!has_children());
        },
    );
}

#[test]
fn concurrent_spawns_wait_for_a_stopped_guard_together() {
    alone(
        "concurrent_spawns_wait_for_a_stopped_guard_together",
        || {
            let guard = set_up();
            // The first `count` spawns fill the socket and do not wait.
            let mut spawned = spawn_until_one_waits();
            let count = spawned.len() - 1;
            guard::disconnect();
            drop(guard);
            let guard = guard::Turn::take().connect().unwrap();
            spawned.extend((0..count).map(|_| idle()));
            // A process may be killed when the thread that spawned it ends. This does no harm here.
            std::thread::scope(|scope| {
                let spawning: Vec<_> = (0..8).map(|_| scope.spawn(timed)).collect();
                for spawning in spawning {
                    let (one, time) = spawning.join().unwrap();
                    assert!(time < ABOUT_A_SECOND, "{time:?}");
                    spawned.push(one);
                }
            });
            guard::disconnect();
            drop(guard);
            end(&spawned);
        },
    );
}

#[test]
fn reports_go_to_the_guard_that_was_asked_for_last_whichever_is_connected_last() {
    alone(
        "reports_go_to_the_guard_that_was_asked_for_last_whichever_is_connected_last",
        || {
            drop(set_up());
            guard::disconnect();
            let (first, second) = (guard::Turn::take(), guard::Turn::take());
            let later = second.connect().unwrap();
            let earlier = first.connect().unwrap();
            hears_at_once(&later);
            // Nobody has the other end.
            assert!(guard::take_report(earlier.as_fd()).unwrap().is_none());
            // Nor does it matter that the earlier one could not be started.
            first.disconnect();
            hears_at_once(&later);
            second.disconnect();
            end(&[idle()]);
            assert!(guard::take_report(later.as_fd()).unwrap().is_none());
        },
    );
}

#[test]
fn a_process_for_which_there_was_no_descriptor_is_reported_when_there_is_one() {
    alone(
        "a_process_for_which_there_was_no_descriptor_is_reported_when_there_is_one",
        || {
            // Without pidfds of our own, a report needs one.
            assert_eq!(exit::choose(Some(Source::Portable)), Ok(Source::Portable));
            let guard = set_up();
            guard::disconnect();
            let spawned = idle();
            drop(guard);
            let guard = guard::Turn::take().connect().unwrap();
            let whole = limit(libc::RLIMIT_NOFILE).rlim_cur;
            set_limit(libc::RLIMIT_NOFILE, 3);
            guard::report(&spawned.child);
            set_limit(libc::RLIMIT_NOFILE, whole);
            go_on(&guard, &[spawned]);
            guard::disconnect();
        },
    );
}

#[test]
fn a_new_guard_does_not_wait_for_the_answers_of_an_old_one() {
    alone(
        "a_new_guard_does_not_wait_for_the_answers_of_an_old_one",
        || {
            let old = set_up();
            let spawned = spawn_until_one_waits();
            guard::disconnect();
            let new = guard::Turn::take().connect().unwrap();
            hears_at_once(&new);
            drop(old);
            hears_at_once(&new);
            guard::disconnect();
            for spawned in spawned {
                spawned.child.signal(Signal::KILL).unwrap();
                status(&spawned.child);
            }
            assert!(!has_children());
        },
    );
}
