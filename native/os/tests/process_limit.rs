//! At the limit of processes, a spawn fails with `EAGAIN`, leaves nothing behind, and succeeds as
//! soon as there is room.
//!
//! # Safety
//! Unsafe code here drops the privileges of a process that only this test uses.
#![allow(unsafe_code)]

mod common;

use std::fs;

use common::{alone, descriptors, has_children, limit, quiet_sh, set_limit, soon, spawn, status};
use exile_os::{Status, Step};

/// Returns a user that has no other processes, because the limit counts all processes of a user.
/// Each run gets another user id, from the range that every container has.
fn nobody() -> libc::uid_t {
    20_000 + std::process::id() % 40_000
}

/// Returns the number of threads of this process. The limit counts threads.
fn threads() -> libc::rlim_t {
    fs::read_dir("/proc/self/task").unwrap().count() as libc::rlim_t
}

#[test]
fn at_the_limit_of_processes_a_spawn_is_eagain_until_the_limit_is_raised() {
    // SAFETY: geteuid cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        common::skip("only root, to whom the limit does not apply, can become another user");
        return;
    }
    alone(
        "at_the_limit_of_processes_a_spawn_is_eagain_until_the_limit_is_raised",
        || {
            // SAFETY: these calls take integers. A change of user makes the process undumpable;
            // it must be dumpable again to read its own files in /proc.
            unsafe {
                assert_eq!(libc::setgid(nobody()), 0);
                assert_eq!(libc::setuid(nobody()), 0);
                assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
            }
            let command = quiet_sh("exit 0");
            // The first spawn starts the thread that waits, where there is one.
            assert_eq!(status(&spawn(&command).child), Status::Exited(0));
            let before = descriptors();
            let whole = limit(libc::RLIMIT_NPROC).rlim_cur;
            for _ in 0..50 {
                set_limit(libc::RLIMIT_NPROC, threads());
                let error = common::try_spawn(&command).unwrap_err();
                assert_eq!((error.step, error.errno.raw()), (Step::Clone, libc::EAGAIN));
                assert_eq!(descriptors(), before);
                assert!(!has_children());

                // One more process is allowed; a second is not while the first exists.
                set_limit(libc::RLIMIT_NPROC, threads() + 1);
                let waiting = quiet_sh("kill -STOP $$");
                let first = spawn(&waiting);
                let error = common::try_spawn(&command).unwrap_err();
                assert_eq!((error.step, error.errno.raw()), (Step::Clone, libc::EAGAIN));
                first.child.signal(exile_os::Signal::KILL).unwrap();
                status(&first.child);
                let mut second = None;
                soon("the kernel has forgotten the first", || {
                    second = common::try_spawn(&command).ok();
                    second.is_some()
                });
                assert_eq!(status(&second.unwrap().child), Status::Exited(0));

                set_limit(libc::RLIMIT_NPROC, whole);
                assert_eq!(status(&spawn(&command).child), Status::Exited(0));
                assert_eq!(descriptors(), before);
            }
        },
    );
}
