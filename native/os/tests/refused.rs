//! A process that runs as another user may not be signalled. A request to end it is refused at
//! once, and nothing waits for its exit.
//!
//! # Safety
//! Unsafe code here changes the user of a process that only one test uses.
#![allow(unsafe_code)]

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, Relatives, TempDir, alone, c, descriptors, has_children, is_alone, line, no_lives,
    quiet_sh, soon, spawn, status,
};
use exile_os::life::{keeper, registry};
use exile_os::{Errno, Life, Signal, Spawned, Status, Teardown, exit};

const LONG: Duration = Duration::from_secs(1000);

/// Returns a user that has no other processes. Each run gets another user id, from the range that
/// every container has.
fn nobody() -> libc::uid_t {
    20_000 + std::process::id() % 40_000
}

fn become_user(user: libc::uid_t) {
    // SAFETY: these calls take integers. A change of user makes the process undumpable; it must be
    // dumpable again to read its own files in /proc.
    unsafe {
        assert_eq!(libc::setresgid(user, user, user), 0);
        assert_eq!(libc::setresuid(user, user, user), 0);
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
    }
}

/// Not a test, but the program of another user. The program is a copy of this test binary that
/// belongs to root and has the set-user-ID bit.
#[test]
fn a_program_of_another_user() {
    if is_alone("a_program_of_another_user") {
        become_user(0);
        let script = ["-c", "echo; echo ready; exec cat >/dev/null"];
        panic!(
            "{}",
            std::process::Command::new("/bin/sh").args(script).exec()
        );
    }
}

/// Runs `body` as an unprivileged user, with the path of a program that becomes another user.
fn without_privileges(name: &str, body: impl FnOnce(&std::path::Path)) {
    // SAFETY: geteuid cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        common::skip("only root can have a program that becomes another user");
        return;
    }
    alone(name, || {
        let directory = TempDir::new();
        let program = directory.path().join("other");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let set_user_id = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
        fs::set_permissions(&program, set_user_id).unwrap();
        // The unprivileged user must be able to remove the directory at the end.
        std::os::unix::fs::chown(directory.path(), Some(nobody()), None).unwrap();
        become_user(nobody());
        if exit::choose(None) != Ok(exit::Source::Pidfd) {
            common::sigchld(libc::SIG_DFL);
        }
        body(&program);
    });
}

/// Spawns the program of another user.
fn other(program: &std::path::Path) -> Spawned {
    let name = "a_program_of_another_user";
    let arguments = [name, "--exact", "--nocapture", "--test-threads=1"];
    let env = vec![c(format!("EXILE_TEST_ALONE={name}"))];
    let command = exile_os::Command::new(c(program), arguments.map(c), env, None);
    let spawned = spawn(&command.into());
    while line(spawned.stdout.as_ref().unwrap()) != "ready" {}
    spawned
}

/// The callbacks that a life calls.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Claimed,
    Ended,
    Over(Option<Errno>),
}

#[test]
fn ending_a_program_that_became_another_user_is_refused_at_once_and_can_be_retried() {
    without_privileges(
        "ending_a_program_that_became_another_user_is_refused_at_once_and_can_be_retried",
        |program| {
            keeper::start().unwrap();
            // The first spawn starts every other thread.
            assert_eq!(status(&spawn(&quiet_sh("exit 1")).child), Status::Exited(1));
            let before = descriptors();
            let mut other = other(program);
            assert_eq!(other.child.signal(Signal::TERM), Err(Errno::EPERM));
            let (told, heard) = channel();
            let [claimed, ended, over] = std::array::from_fn(|_| told.clone());
            let kin = Relatives {
                claimed: Box::new(move || claimed.send(Told::Claimed).unwrap()),
                ended: Box::new(move || ended.send(Told::Ended).unwrap()),
                over: Box::new(move |refused| over.send(Told::Over(refused)).unwrap()),
            };
            let teardowns = [vec![(Signal::TERM, LONG), (Signal::TERM, LONG)], vec![]];
            let teardowns = teardowns.map(|steps| Teardown {
                grace: Duration::ZERO,
                steps,
            });
            let child = Arc::clone(&other.child);
            let life = Life::begin(child, teardowns[0].clone(), kin).unwrap();
            for teardown in teardowns.iter().cycle().take(10) {
                let start = Instant::now();
                assert!(life.end_by(teardown));
                for expected in [Told::Claimed, Told::Over(Some(Errno::EPERM))] {
                    assert_eq!(heard.recv_timeout(PATIENCE), Ok(expected));
                }
                assert!(start.elapsed() < LONG);
                assert_eq!(registry::under_way(), 0);
                assert_eq!(other.child.try_status(), None);
            }
            // An idle errand does not wait for the process.
            let (quiet, is_quiet) = channel();
            keeper::when_idle(Box::new(move || quiet.send(()).unwrap())).unwrap();
            assert_eq!(is_quiet.recv_timeout(PATIENCE), Ok(()));
            // The keeper still sees the exit.
            other.stdin = None;
            assert_eq!(heard.recv_timeout(PATIENCE), Ok(Told::Ended));
            assert_eq!(other.child.try_status(), Some(Status::Exited(0)));
            assert!(!life.end());
            no_lives();
            assert!(heard.try_iter().all(|told| told == Told::Ended));
            drop((life, other));
            assert_eq!(exit::open_count(), 0);
            assert_eq!(descriptors(), before);
            soon("the kernel has forgotten it", || !has_children());
        },
    );
}

#[test]
fn ending_a_program_of_another_user_is_refused_after_its_grace_period() {
    without_privileges(
        "ending_a_program_of_another_user_is_refused_after_its_grace_period",
        |program| {
            let grace = Duration::from_millis(100);
            let mut other = other(program);
            let (told, heard) = channel();
            let kin = Relatives {
                over: Box::new(move |refused| told.send(refused).unwrap()),
                ..Relatives::default()
            };
            let teardown = Teardown {
                grace,
                steps: vec![(Signal::TERM, LONG)],
            };
            let start = Instant::now();
            let life = Life::begin(Arc::clone(&other.child), teardown, kin).unwrap();
            assert!(life.end());
            assert_eq!(heard.recv_timeout(PATIENCE), Ok(Some(Errno::EPERM)));
            assert!(start.elapsed() >= grace);
            // A process that exits within its grace period does not cause a refusal.
            assert!(life.end_by(&Teardown {
                grace: LONG,
                steps: vec![],
            }));
            other.stdin = None;
            assert_eq!(heard.recv_timeout(PATIENCE), Ok(None));
            no_lives();
            assert_eq!(other.child.try_status(), Some(Status::Exited(0)));
        },
    );
}
