//! A process id that now belongs to another process is never signalled or mistaken for the old one.
//!
//! Each test is PID 1 of its own namespace, where nothing else uses process ids and the next one
//! can be chosen. Each test runs once for every way to get statuses and to signal groups.

mod common;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process;
use std::time::Duration;
use std::{env, fs};

use common::{PATIENCE, becomes_readable, eventually, is_alone, line, sh, sigchld, spawn, status};
use exile_os::exit::{self, Source};
use exile_os::life::{keeper, registry};
use exile_os::{Child, Errno, Signal, Spawned, Status, Teardown};

/// Holds the number after which the kernel searches for the next process id.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

const NAMESPACE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// The environment variable that names the way that a test in its namespace uses.
const WAY: &str = "EXILE_TEST_WAY";

/// `PIDFD_SIGNAL_PROCESS_GROUP`, as the fourth argument of `pidfd_send_signal`.
const TO_GROUP: (u32, u32) = (3, 1 << 2);

/// The longest interval at which the keeper polls the rest of a group.
const LONGEST_LOOKS: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The kernel reaps, and the pidfd provides the status.
    Pidfd,
    /// `waitid` reaps and returns the status.
    Wait,
    /// As [`Way::Wait`], but a group can be signalled only by its number.
    Number,
    /// `waitpid` reaps and returns the status, and processes are known only by number.
    Portable,
}

impl Way {
    const ALL: [Way; 4] = [Way::Pidfd, Way::Wait, Way::Number, Way::Portable];

    /// Returns whether this build supports the way on this kernel.
    fn is_open(self) -> bool {
        match self {
            Way::Portable => true,
            _ if cfg!(exile_portable) => false,
            Way::Pidfd => common::kernel_is_at_least(6, 15),
            Way::Wait => common::kernel_is_at_least(6, 9),
            Way::Number => true,
        }
    }

    fn set_up(self) {
        let (disposition, source) = match self {
            Way::Pidfd => (libc::SIG_IGN, Source::Pidfd),
            Way::Wait | Way::Number => (libc::SIG_DFL, Source::Wait),
            Way::Portable => (libc::SIG_DFL, Source::Portable),
        };
        sigchld(disposition);
        assert_eq!(exit::choose(Some(source)), Ok(source));
        if self == Way::Number {
            common::refuse(libc::SYS_pidfd_send_signal, Some(TO_GROUP), libc::EINVAL);
        }
        assert_eq!(keeper::start(), Ok(()));
    }
}

fn unshare(arguments: &[&str]) -> process::Command {
    let mut command = process::Command::new(NAMESPACE[0]);
    command.args(&NAMESPACE[1..]).args(arguments);
    command
}

/// Runs `body` for each way in its own namespace, by running this test binary again.
fn in_namespaces(name: &str, body: impl FnOnce(Way)) {
    if is_alone(name) {
        let wanted = env::var(WAY).unwrap();
        let way = Way::ALL
            .into_iter()
            .find(|way| format!("{way:?}") == wanted);
        let way = way.unwrap();
        way.set_up();
        return body(way);
    }
    let probe = format!("echo 100 > {LAST_PID}");
    let allowed = unshare(&["sh", "-c", &probe]).output();
    if !allowed.is_ok_and(|ran| ran.status.success()) {
        common::skip("this user may not make a PID namespace and choose its numbers");
        return;
    }
    let binary = common::myself(name);
    for way in Way::ALL.into_iter().filter(|way| way.is_open()) {
        let mut command = unshare(&[]);
        command.arg(binary.get_program()).args(binary.get_args());
        for (key, value) in binary.get_envs() {
            command.env(key, value.unwrap());
        }
        let ran = command.env(WAY, format!("{way:?}")).output().unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr),
        );
        assert!(
            ran.status.success(),
            "{way:?}: {}\n{out}\n{err}",
            ran.status
        );
        assert!(out.contains("1 passed"), "no test is called {name}\n{out}");
    }
}

/// Makes `pid` the id of the next process, if that number is free.
fn next_pid(pid: libc::pid_t) {
    fs::write(LAST_PID, (pid - 1).to_string()).unwrap();
}

/// A process that Exile does not know and must not signal. It leads a process group.
struct Stranger(process::Child);

impl Stranger {
    /// Starts a process that has the id `pid`, as soon as that number is free.
    fn called(pid: libc::pid_t) -> Stranger {
        eventually("the number is free", || {
            next_pid(pid);
            let other = process::Command::new("cat")
                .process_group(0)
                .stdin(process::Stdio::piped())
                .stdout(process::Stdio::piped())
                .spawn()
                .unwrap();
            let other = Stranger(other);
            (other.0.id() == pid.unsigned_abs()).then_some(other)
        })
    }

    /// Asserts that no signal was sent until now: a signal would have ended the process before it
    /// could answer.
    fn must_be_well(&mut self) {
        let mut answer = [0];
        self.0.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        let read = self.0.stdout.as_mut().unwrap().read(&mut answer);
        assert_eq!((read.unwrap(), &answer), (1, b"?"), "it was killed");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // This fails where the kernel reaps.
        let _ = self.0.wait();
    }
}

fn at_once() -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![],
    }
}

/// Makes the keeper end `child` and waits until no teardown is left.
fn end(child: &std::sync::Arc<Child>, teardown: Teardown) {
    common::end_by(child, &teardown);
    common::no_lives();
}

/// Returns a process that has exited and whose number is free. Where the kernel reaps, the status
/// has not been read yet.
fn ended(way: Way) -> Spawned {
    let mut spawned = spawn(&sh("cat; exit 7"));
    let end = spawned.child.end().unwrap();
    spawned.stdin = None;
    assert!(becomes_readable(end.as_raw_fd(), PATIENCE), "it runs on");
    if way != Way::Pidfd {
        assert_eq!(status(&spawned.child), Status::Exited(7));
    }
    spawned
}

#[test]
fn a_signal_to_a_program_that_has_ended_reaches_no_process() {
    in_namespaces(
        "a_signal_to_a_program_that_has_ended_reaches_no_process",
        |way| {
            let old = ended(way);
            let mut stranger = Stranger::called(old.child.pid());
            assert_eq!(old.child.signal(Signal::KILL), Err(Errno::ESRCH));
            stranger.must_be_well();
            assert_eq!(old.child.try_status(), Some(Status::Exited(7)));
            assert_eq!(old.child.signal(Signal::KILL), Err(Errno::ESRCH));
            stranger.must_be_well();
        },
    );
}

#[test]
fn the_teardown_of_a_program_that_has_ended_reaches_no_process() {
    in_namespaces(
        "the_teardown_of_a_program_that_has_ended_reaches_no_process",
        |way| {
            let old = ended(way);
            let mut stranger = Stranger::called(old.child.pid());
            end(&old.child, at_once());
            stranger.must_be_well();
            assert_eq!(old.child.try_status(), Some(Status::Exited(7)));
            end(&old.child, at_once());
            stranger.must_be_well();
        },
    );
}

#[test]
fn a_teardown_that_continues_after_its_program_exits_reaches_only_the_group() {
    in_namespaces(
        "a_teardown_that_continues_after_its_program_exits_reaches_only_the_group",
        |way| {
            // The group member keeps the number in use until it reads end-of-file.
            let script = "exec 4<&0; trap '' TERM; cat <&4 & trap 'exit 5' TERM; echo ready; wait";
            let mut old = spawn(&sh(script));
            assert_eq!(line(old.stdout.as_ref().unwrap()), "ready");
            let teardown = Teardown {
                grace: Duration::ZERO,
                steps: vec![(Signal::TERM, 3 * LONGEST_LOOKS)],
            };
            assert!(common::end_by(&old.child, &teardown));
            assert_eq!(status(&old.child), Status::Exited(5));
            if matches!(way, Way::Pidfd | Way::Wait) {
                assert_eq!(registry::under_way(), 1);
            }
            // By then the keeper polls only every 100 ms, so it does not notice at once that the
            // group is empty.
            std::thread::sleep(LONGEST_LOOKS);
            old.stdin = None;
            let mut stranger = Stranger::called(old.child.pid());
            common::no_lives();
            stranger.must_be_well();
        },
    );
}

#[test]
fn a_program_that_was_reaped_elsewhere_is_not_signalled_by_its_number() {
    in_namespaces(
        "a_program_that_was_reaped_elsewhere_is_not_signalled_by_its_number",
        |way| {
            match way {
                // The pidfd provides the status, whichever process reaped.
                Way::Pidfd => return,
                // By number, another child of this process cannot be distinguished.
                Way::Portable => return,
                Way::Wait | Way::Number => {}
            }
            let spawned = spawn(&sh("cat"));
            let torn_down = spawn(&sh("trap '' TERM; echo ready; cat"));
            assert_eq!(line(torn_down.stdout.as_ref().unwrap()), "ready");
            let patient = Teardown {
                grace: Duration::ZERO,
                steps: vec![(Signal::TERM, Duration::from_millis(500))],
            };
            assert!(common::end_by(&torn_down.child, &patient));
            // From here on the kernel discards statuses.
            sigchld(libc::SIG_IGN);
            drop((spawned.stdin, torn_down.stdin));
            let mut strangers =
                [&spawned.child, &torn_down.child].map(|child| Stranger::called(child.pid()));
            assert_eq!(spawned.child.signal(Signal::TERM), Err(Errno::ESRCH));
            end(&spawned.child, at_once());
            strangers.iter_mut().for_each(Stranger::must_be_well);
            assert_eq!(spawned.child.try_status(), Some(Status::Unknown));
            assert_eq!(torn_down.child.try_status(), Some(Status::Unknown));
        },
    );
}

#[test]
fn a_program_with_the_number_of_an_older_one_has_its_own_status() {
    in_namespaces(
        "a_program_with_the_number_of_an_older_one_has_its_own_status",
        |way| {
            for _ in 0..20 {
                let old = ended(way);
                let new = eventually("the number is free", || {
                    next_pid(old.child.pid());
                    let new = spawn(&sh("cat; exit 8"));
                    (new.child.pid() == old.child.pid()).then_some(new)
                });
                exit::sweep();
                assert_eq!(status(&old.child), Status::Exited(7));
                drop(old);
                exit::sweep();
                assert_eq!(new.child.try_status(), None);
                drop(new.stdin);
                assert_eq!(status(&new.child), Status::Exited(8));
            }
            common::soon("those that got other numbers are gone", || {
                exit::sweep();
                exit::open_count() == 0
            });
        },
    );
}
