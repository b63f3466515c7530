//! Any system call may fail because the kernel is out of memory or another resource. Whichever call
//! fails: the error names the step, nothing is left behind, and the next spawn succeeds.
//!
//! Most failures are simulated by filters. A filter applies to one thread and what it starts, so
//! another thread can check that nothing is left. In the last test the memory really runs out.

mod common;

use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, Run, alone, becomes_readable, command, descriptors, has_children, limit,
    one_at_a_time, quiet_sh, refuse, set_limit, sh, spawn, status,
};
use exile_os::life::keeper;
use exile_os::pipe::{DEFAULT_CAPACITY, GROWN_CAPACITY, set_capacity};
use exile_os::{Errno, Signal, SpawnError, Status, Stdio, Step, Teardown, exit, guard};

/// The system call that the C library makes for `fcntl`.
#[cfg(target_pointer_width = "64")]
const FCNTL: libc::c_long = libc::SYS_fcntl;
#[cfg(target_pointer_width = "32")]
const FCNTL: libc::c_long = libc::SYS_fcntl64;

/// Runs `work` in a thread in which a system call fails, and returns its result.
fn where_refused<T: Send>(
    call: libc::c_long,
    argument: Option<(u32, u32)>,
    errno: libc::c_int,
    work: impl FnOnce() -> T + Send,
) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            refuse(call, argument, errno);
            work()
        });
        worker.join().unwrap()
    })
}

/// Several times, checks that a spawn fails under the filter and that the next one succeeds.
fn fails_and_recovers(
    command: &Run,
    call: libc::c_long,
    argument: Option<(u32, u32)>,
    errno: libc::c_int,
    step: Step,
) {
    let before = descriptors();
    let expected = SpawnError {
        step,
        errno: Errno::new(errno),
    };
    for _ in 0..20 {
        let failure = where_refused(call, argument, errno, || common::try_spawn(command).err());
        assert_eq!(failure, Some(expected));
        assert_eq!(descriptors(), before);
        assert_eq!(exit::open_count(), 0);
        assert!(!has_children());
        assert_eq!(status(&spawn(command).child), Status::Exited(0));
        assert_eq!(descriptors(), before);
    }
}

/// Returns the step that the error names when the new process fails at `step`.
fn in_child(step: Step, errno: libc::c_int) -> Step {
    // The error of posix_spawn does not show whether creating the process failed.
    if cfg!(exile_portable) && matches!(errno, libc::ENOMEM | libc::EAGAIN) {
        Step::Clone
    } else {
        step
    }
}

fn with_pipes() -> Run {
    command("/bin/true", &[]).stdio(Stdio::Pipe, Stdio::Pipe, Stdio::Pipe)
}

/// Converts an open flag, or a command of `fcntl`, to the type that a filter compares.
fn value(flags: libc::c_int) -> u32 {
    flags as u32
}

#[test]
#[cfg_attr(exile_portable, ignore = "the C library makes it")]
fn a_process_that_cannot_be_created_fails_the_spawn() {
    let _one = one_at_a_time();
    for errno in [libc::ENOMEM, libc::EAGAIN] {
        fails_and_recovers(&with_pipes(), libc::SYS_clone, None, errno, Step::Clone);
        fails_and_recovers(&quiet_sh(""), libc::SYS_clone, None, errno, Step::Clone);
    }
}

#[test]
fn a_pipe_that_cannot_be_created_fails_the_spawn() {
    let _one = one_at_a_time();
    for errno in [libc::ENOMEM, libc::ENFILE, libc::EMFILE] {
        fails_and_recovers(&with_pipes(), libc::SYS_pipe2, None, errno, Step::Stdio);
    }
}

#[test]
fn a_pipe_whose_flags_cannot_be_set_fails_the_spawn() {
    let _one = one_at_a_time();
    let set_flags = Some((1, value(libc::F_SETFL)));
    fails_and_recovers(&with_pipes(), FCNTL, set_flags, libc::ENOMEM, Step::Stdio);
}

#[test]
fn a_null_device_that_cannot_be_opened_fails_the_spawn() {
    let _one = one_at_a_time();
    let flags = Some((2, value(libc::O_RDWR | libc::O_CLOEXEC)));
    for errno in [libc::ENOMEM, libc::ENFILE, libc::EMFILE] {
        fails_and_recovers(&quiet_sh(""), libc::SYS_openat, flags, errno, Step::Stdio);
    }
}

#[test]
fn a_directory_that_cannot_be_entered_for_lack_of_memory_fails_the_spawn() {
    let _one = one_at_a_time();
    let command = with_pipes().directory(Some(common::c("/")));
    fails_and_recovers(
        &command,
        libc::SYS_chdir,
        None,
        libc::ENOMEM,
        in_child(Step::Directory, libc::ENOMEM),
    );
}

#[test]
fn a_program_that_cannot_be_executed_for_lack_of_memory_fails_the_spawn() {
    let _one = one_at_a_time();
    for errno in [libc::ENOMEM, libc::EAGAIN, libc::ENFILE] {
        fails_and_recovers(
            &with_pipes(),
            libc::SYS_execve,
            None,
            errno,
            in_child(Step::Exec, errno),
        );
    }
}

#[test]
fn a_pipe_that_may_not_grow_still_works() {
    let _one = one_at_a_time();
    let spawned = spawn(&sh("cat"));
    let stdin = spawned.stdin.as_ref().unwrap();
    let capacity = Some((1, value(libc::F_SETPIPE_SZ)));
    for errno in [libc::EPERM, libc::ENOMEM, libc::EBUSY] {
        let grown = where_refused(FCNTL, capacity, errno, || {
            set_capacity(stdin, GROWN_CAPACITY)
        });
        assert_eq!(grown, Err(Errno::new(errno)));
        assert_eq!(
            set_capacity(stdin, DEFAULT_CAPACITY),
            Ok(DEFAULT_CAPACITY),
            "it cannot be had any more"
        );
    }
    let output = spawned.stdout.as_ref().unwrap();
    let slices = [std::io::IoSlice::new(b"hello")];
    assert_eq!(stdin.write(&slices), Ok(Some(5)));
    assert_eq!(common::read_some(output).as_deref(), Some(&b"hello"[..]));
    drop(spawned.stdin);
    assert_eq!(status(&spawned.child), Status::Exited(0));
}

#[test]
fn a_keeper_that_cannot_start_returns_the_error_and_starts_later() {
    let _one = one_at_a_time();
    alone(
        "a_keeper_that_cannot_start_returns_the_error_and_starts_later",
        || {
            let before = descriptors();
            let waker = where_refused(libc::SYS_pipe2, None, libc::ENOMEM, keeper::start);
            assert_eq!(waker, Err(Errno::ENOMEM));
            assert_eq!(descriptors(), before);
            // Which of the two calls creates a thread depends on the C library.
            let thread = where_refused(libc::SYS_clone3, None, libc::EAGAIN, || {
                refuse(libc::SYS_clone, None, libc::EAGAIN);
                keeper::start()
            });
            assert_eq!(thread, Err(Errno::EAGAIN));
            // The thread's descriptors are created once and kept: a pipe to wake it up and, where
            // it uses epoll, the epoll descriptor.
            let count = before.len() + if cfg!(exile_portable) { 2 } else { 3 };
            assert_eq!(descriptors().len(), count);
            assert_eq!(keeper::start(), Ok(()));
            assert_eq!(keeper::start(), Ok(()));
            assert_eq!(descriptors().len(), count);
            // The keeper works.
            let stubborn = spawn(&sh("trap '' TERM; echo ready; exec sleep 1000"));
            assert_eq!(common::line(stubborn.stdout.as_ref().unwrap()), "ready");
            let at_once = Teardown {
                grace: Duration::ZERO,
                steps: vec![],
            };
            assert!(common::end_by(&stubborn.child, &at_once));
            common::no_lives();
            assert!(stubborn.child.try_status().is_some());
        },
    );
}

#[test]
fn a_keeper_that_cannot_wait_for_lack_of_memory_still_ends_commands() {
    let _one = one_at_a_time();
    alone(
        "a_keeper_that_cannot_wait_for_lack_of_memory_still_ends_commands",
        || {
            // Which of these calls the keeper waits in depends on the architecture and the build.
            let started = thread::spawn(|| {
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                refuse(libc::SYS_poll, None, libc::ENOMEM);
                refuse(libc::SYS_ppoll, None, libc::ENOMEM);
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                refuse(libc::SYS_epoll_wait, None, libc::ENOMEM);
                refuse(libc::SYS_epoll_pwait, None, libc::ENOMEM);
                keeper::start()
            });
            assert_eq!(started.join().unwrap(), Ok(()));
            let before = descriptors();
            let commands: Vec<_> = (0..20)
                .map(|_| {
                    let stubborn = spawn(&sh("trap '' TERM; echo ready; exec sleep 1000"));
                    assert_eq!(common::line(stubborn.stdout.as_ref().unwrap()), "ready");
                    stubborn
                })
                .collect();
            for command in &commands {
                let teardown = Teardown {
                    grace: Duration::ZERO,
                    steps: vec![(Signal::TERM, Duration::from_millis(50))],
                };
                assert!(common::end_by(&command.child, &teardown));
            }
            common::no_lives();
            for command in commands {
                let killed = Status::Signaled {
                    signal: libc::SIGKILL as u8,
                    core: false,
                };
                assert_eq!(command.child.try_status(), Some(killed));
            }
            assert_eq!(descriptors(), before);
            assert!(!has_children());
        },
    );
}

/// Spawns with a guard connected while `call` fails with `errno`. Returns how long the spawned
/// process took to exit, and whether a report arrived.
fn guarded(call: libc::c_long, errno: libc::c_int) -> (Duration, bool) {
    let theirs = guard::Turn::take().connect().unwrap();
    let start = Instant::now();
    let spawned = where_refused(call, None, errno, || {
        let spawned = spawn(&quiet_sh("exit 9"));
        assert_eq!(status(&spawned.child), Status::Exited(9));
        start.elapsed()
    });
    guard::disconnect();
    // End-of-file also makes the socket readable; a report is one byte.
    let mut byte = 0u8;
    assert!(becomes_readable(theirs.as_raw_fd(), PATIENCE));
    let reported = read_byte(&theirs, &mut byte);
    (spawned, reported)
}

fn read_byte(socket: &std::os::fd::OwnedFd, byte: &mut u8) -> bool {
    use std::io::Read;
    let mut file = std::fs::File::from(socket.try_clone().unwrap());
    file.read(std::slice::from_mut(byte)).unwrap() == 1
}

#[test]
#[cfg_attr(exile_portable, ignore = "it does not")]
fn a_child_that_cannot_report_itself_to_the_guard_runs_and_is_reported_by_its_parent() {
    let _one = one_at_a_time();
    let before = descriptors();
    for errno in [libc::EMFILE, libc::ENOMEM] {
        assert!(guarded(libc::SYS_pidfd_open, errno).1);
    }
    assert_eq!(descriptors(), before);
}

#[test]
#[cfg_attr(exile_portable, ignore = "it is told in another way")]
fn a_guard_that_gets_no_report_delays_a_spawn_but_does_not_prevent_it() {
    let _one = one_at_a_time();
    // The keeper retries the report later.
    keeper::start().unwrap();
    let before = descriptors();
    for errno in [libc::ENOBUFS, libc::ENOMEM] {
        let (time, reported) = guarded(libc::SYS_sendmsg, errno);
        assert!(!reported);
        // The parent has retried, but not for ever.
        assert!(time > Duration::from_millis(500), "{time:?}");
        assert!(time < PATIENCE, "{time:?}");
    }
    assert_eq!(descriptors(), before);
}

#[test]
#[cfg_attr(exile_portable, ignore = "the C library finds out before")]
fn a_program_without_address_space_is_killed_and_runs_when_there_is_some() {
    let _one = one_at_a_time();
    alone(
        "a_program_without_address_space_is_killed_and_runs_when_there_is_some",
        || {
            let command = with_pipes();
            // The first spawn allocates everything that this process keeps.
            assert_eq!(status(&spawn(&command).child), Status::Exited(0));
            let before = descriptors();
            let whole = limit(libc::RLIMIT_AS).rlim_cur;
            for _ in 0..20 {
                set_limit(libc::RLIMIT_AS, 0);
                let spawned = common::try_spawn(&command);
                set_limit(libc::RLIMIT_AS, whole);
                // The kernel notices only after it has discarded the old program.
                let ended = status(&spawned.unwrap().child);
                assert!(matches!(ended, Status::Signaled { .. }), "{ended:?}");
                assert_eq!(descriptors(), before);
                assert!(!has_children());
                assert_eq!(status(&spawn(&command).child), Status::Exited(0));
                assert_eq!(descriptors(), before);
            }
        },
    );
}
