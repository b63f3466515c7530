//! A child briefly shares the table of descriptors. It gets the right descriptors, changes nothing
//! for other threads, and leaves nothing behind.
#![cfg(not(exile_portable))]

mod common;

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{
    PATIENCE, TempDir, alone, becomes_readable, command, has_children, inheritable, limit, line,
    null, quiet_sh, read_to_end, refuse, set_limit, sh, soon, spawn, status, table, text,
};
use exile_os::{Errno, Status, Stdio, Step, guard, spawn::reserve};

/// Checks a spawn that uses a pipe for every stream, and that both outputs end.
fn all_streams_work() {
    let script = "cat; echo err >&2; cd /proc/$$/fd && echo *";
    let mut spawned = spawn(&sh(script).stdio(Stdio::Pipe, Stdio::Pipe, Stdio::Pipe));
    let written = spawned
        .stdin
        .take()
        .unwrap()
        .write(&[IoSlice::new(b"in\n")]);
    assert_eq!(written, Ok(Some(3)));
    // End-of-file arrives only if nothing else holds the write end.
    assert_eq!(read_to_end(&spawned.stdout.unwrap()), b"in\n0 1 2 3\n");
    assert_eq!(read_to_end(&spawned.stderr.unwrap()), b"err\n");
    assert_eq!(status(&spawned.child), Status::Exited(0));
}

/// Opens `count + 1` descriptors. About half would be inherited if they were not hidden.
fn crowd(count: usize) -> Vec<OwnedFd> {
    set_limit(libc::RLIMIT_NOFILE, limit(libc::RLIMIT_NOFILE).rlim_max);
    let null = null();
    let mut crowd: Vec<OwnedFd> = (0..count)
        .map(|number| match number % 2 {
            0 => null.try_clone().unwrap(),
            _ => inheritable(null.as_fd(), 3),
        })
        .collect();
    crowd.push(null);
    crowd
}

#[test]
fn a_spawn_leaves_the_table_unchanged_and_every_output_ends() {
    alone(
        "a_spawn_leaves_the_table_unchanged_and_every_output_ends",
        || {
            let before = table();
            for _ in 0..20 {
                all_streams_work();
                assert_eq!(table(), before);
                let failed = common::try_spawn(&command("/nonexistent", &[]));
                assert!(failed.is_err());
                assert_eq!(table(), before);
            }
        },
    );
}

#[test]
fn with_many_descriptors_open_a_program_gets_its_own_streams() {
    alone(
        "with_many_descriptors_open_a_program_gets_its_own_streams",
        || {
            reserve();
            let _crowd = crowd(5000);
            let before = table();
            all_streams_work();
            assert_eq!(table(), before);
        },
    );
}

#[test]
fn without_free_low_numbers_a_program_gets_its_own_streams() {
    alone(
        "without_free_low_numbers_a_program_gets_its_own_streams",
        || {
            // The low numbers are taken before the first spawn.
            let _crowd = crowd(500);
            reserve();
            let before = table();
            all_streams_work();
            assert_eq!(table(), before);
        },
    );
}

#[test]
fn a_file_with_a_high_number_reaches_the_program() {
    alone("a_file_with_a_high_number_reaches_the_program", || {
        reserve();
        let _crowd = crowd(500);
        let temp = TempDir::new();
        let mut out = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(temp.path().join("out"))
            .unwrap();
        assert!(out.as_raw_fd() > 64);
        let theirs = Stdio::Fd(out.try_clone().unwrap().into());
        let command = sh("echo out; echo err >&2").stdio(Stdio::Null, theirs, Stdio::Stdout);
        assert_eq!(status(&spawn(&command).child), Status::Exited(0));
        let mut written = String::new();
        std::io::Seek::rewind(&mut out).unwrap();
        out.read_to_string(&mut written).unwrap();
        assert_eq!(written, "out\nerr\n");
    });
}

#[test]
fn a_guard_with_a_high_number_gets_the_report_before_the_program_runs() {
    alone(
        "a_guard_with_a_high_number_gets_the_report_before_the_program_runs",
        || {
            reserve();
            let _crowd = crowd(500);
            let theirs = guard::Turn::take().connect().unwrap();
            let before = table();
            let spawned = spawn(&sh("cat"));
            // The guard has the report already.
            let report = guard::take_report(theirs.as_fd()).unwrap().unwrap();
            report.kill_group();
            drop(report);
            assert!(matches!(
                status(&spawned.child),
                Status::Signaled { signal: 9, .. }
            ));
            drop(spawned);
            assert_eq!(table(), before);
            // The guard sees end-of-file on the socket.
            guard::disconnect();
            assert!(becomes_readable(theirs.as_raw_fd(), PATIENCE));
            assert!(guard::take_report(theirs.as_fd()).unwrap().is_none());
        },
    );
}

/// Makes every clone that copies the table fail.
fn refuse_copies() {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    refuse(libc::SYS_clone, Some((0, flags as u32)), libc::EPERM);
}

#[test]
fn the_table_is_not_copied_unnecessarily() {
    alone("the_table_is_not_copied_unnecessarily", || {
        refuse_copies();
        all_streams_work();
        // After the first refusal, sharing the table is not tried again.
        let unshare = (2, libc::CLOSE_RANGE_UNSHARE);
        refuse(libc::SYS_close_range, Some(unshare), libc::ENOSYS);
        for _ in 0..2 {
            let error = common::try_spawn(&sh("exit 0")).unwrap_err();
            assert_eq!((error.step, error.errno), (Step::Clone, Errno::EPERM));
        }
    });
}

#[test]
fn if_a_child_cannot_leave_the_table_it_is_copied_from_then_on() {
    alone(
        "if_a_child_cannot_leave_the_table_it_is_copied_from_then_on",
        || {
            let before = table();
            for errno in [libc::ENOSYS, libc::EPERM, libc::EINVAL] {
                // A filter cannot be removed, so each case runs in its own thread.
                let refused = std::thread::spawn(move || {
                    let unshare = (2, libc::CLOSE_RANGE_UNSHARE);
                    refuse(libc::SYS_close_range, Some(unshare), errno);
                    all_streams_work();
                });
                refused.join().unwrap();
                assert_eq!(table(), before);
                soon("nothing is left of the child that failed", || {
                    !has_children()
                });
            }
            all_streams_work();
            assert_eq!(table(), before);
        },
    );
}

#[test]
fn a_limit_below_the_reserved_numbers_loses_no_output() {
    alone("a_limit_below_the_reserved_numbers_loses_no_output", || {
        let before = table();
        let whole = limit(libc::RLIMIT_NOFILE).rlim_cur;
        // Leave some low numbers free: the limit applies only to new descriptors.
        let lowest = before.iter().position(|(_, target)| target == "/dev/null");
        for soft in [lowest.unwrap() as libc::rlim_t + 1, 20, 30, 40, 63] {
            set_limit(libc::RLIMIT_NOFILE, soft);
            let out = common::try_spawn(&sh("echo out").stdio(
                Stdio::Inherit,
                Stdio::Inherit,
                Stdio::Inherit,
            ));
            set_limit(libc::RLIMIT_NOFILE, whole);
            if let Ok(spawned) = out {
                assert_eq!(status(&spawned.child), Status::Exited(0));
            }
            assert_eq!(table(), before);
            all_streams_work();
            assert_eq!(table(), before);
        }
        // Here the streams exist already, and only the reserved numbers are above the limit.
        let (read, write) = nix::unistd::pipe().unwrap();
        let command = sh("echo through").stdio(Stdio::Null, Stdio::Fd(write), Stdio::Null);
        set_limit(libc::RLIMIT_NOFILE, 3);
        let refused = common::try_spawn(&command);
        set_limit(libc::RLIMIT_NOFILE, whole);
        assert!(refused.is_err());
        let spawned = spawn(&command);
        assert_eq!(status(&spawned.child), Status::Exited(0));
        drop(command);
        let mut all = String::new();
        File::from(read).read_to_string(&mut all).unwrap();
        assert_eq!(all, "through\n");
        assert_eq!(table(), before);
    });
}

#[test]
fn more_concurrent_spawns_than_reserved_numbers_all_succeed() {
    alone(
        "more_concurrent_spawns_than_reserved_numbers_all_succeed",
        || {
            common::disposition_of(libc::SIGIO, libc::SIG_IGN);
            let temp = TempDir::new();
            let path = temp.path().join("slow");
            std::fs::copy("/bin/true", &path).unwrap();
            let leased = File::open(&path).unwrap();
            let before = table();
            common::lease(&leased, libc::F_WRLCK);
            std::thread::scope(|scope| {
                for _ in 0..12 {
                    scope.spawn(|| {
                        let hung = command(&path, &[]).stdio(Stdio::Pipe, Stdio::Pipe, Stdio::Pipe);
                        let spawned = spawn(&hung);
                        assert_eq!(read_to_end(&spawned.stdout.unwrap()), b"");
                        assert_eq!(status(&spawned.child), Status::Exited(0));
                    });
                }
                soon("they hang", || {
                    let children = std::fs::read_dir("/proc/self/task").unwrap();
                    let of = |task: std::fs::DirEntry| {
                        std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
                    };
                    children
                        .map(|task| of(task.unwrap()))
                        .filter(|all| !all.is_empty())
                        .count()
                        == 12
                });
                // Other spawns do not wait for those that hang.
                assert_eq!(text(&sh("echo hello")), "hello\n");
                all_streams_work();
                common::lease(&leased, libc::F_UNLCK);
            });
            assert_eq!(table(), before);
        },
    );
}

#[test]
fn spawns_do_not_disturb_threads_that_open_and_close_descriptors() {
    alone(
        "spawns_do_not_disturb_threads_that_open_and_close_descriptors",
        || {
            let before = table();
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            let (read, write) = nix::unistd::pipe().unwrap();
                            assert_eq!(nix::unistd::write(&write, b"mine"), Ok(4));
                            drop(write);
                            let mut bytes = Vec::new();
                            File::from(read).read_to_end(&mut bytes).unwrap();
                            assert_eq!(bytes, b"mine");
                        }
                    });
                }
                let spawning: Vec<_> = (0..8)
                    .map(|thread| {
                        scope.spawn(move || {
                            for round in 0..500 {
                                let word = format!("{thread} {round}");
                                let echo = command("/bin/echo", &[&word]);
                                let echo = echo.stdio(Stdio::Null, Stdio::Pipe, Stdio::Null);
                                let spawned = spawn(&echo);
                                assert_eq!(line(&spawned.stdout.unwrap()), word);
                                assert_eq!(status(&spawned.child), Status::Exited(0));
                            }
                        })
                    })
                    .collect();
                for thread in spawning {
                    thread.join().unwrap();
                }
                over.store(true, Ordering::Relaxed);
            });
            assert_eq!(table(), before);
            assert_eq!(status(&spawn(&quiet_sh("exit 5")).child), Status::Exited(5));
        },
    );
}
