//! The exit status of a program is exact, whichever source statuses come from. `crate::setup`
//! chooses the source; `crate::bury_strangers` reaps children that nothing else waits for.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use exile_os::{Errno, Signal, Spawned, Status, exit};

use crate::common::{
    TempDir, becomes_readable, c, command, descriptors, has_children, limit, line, one_at_a_time,
    quiet_sh, sh, soon, spawn, status,
};
use crate::{bury_strangers, setup};

fn signaled(signal: i32) -> Status {
    Status::Signaled {
        signal: signal as u8,
        core: false,
    }
}

/// Asserts that nothing is left of any process.
fn nothing_left() {
    assert_eq!(exit::open_count(), 0);
    soon("the kernel has forgotten all children", || !has_children());
}

#[test]
fn every_exit_code_is_exact() {
    let _one = one_at_a_time();
    setup();
    let codes: Vec<u8> = (0..=255).collect();
    for codes in codes.chunks(32) {
        let spawned: Vec<Spawned> = codes
            .iter()
            .map(|code| spawn(&quiet_sh(&format!("exit {code}"))))
            .collect();
        for (code, spawned) in codes.iter().zip(spawned) {
            let ended = status(&spawned.child);
            assert_eq!(ended, Status::Exited(*code));
            assert_eq!(ended.code(), Some(*code));
        }
    }
    nothing_left();
}

#[test]
fn a_signal_that_ends_a_program_is_exact() {
    let _one = one_at_a_time();
    setup();
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    let usual = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGILL,
        libc::SIGABRT,
        libc::SIGFPE,
        libc::SIGKILL,
        libc::SIGSEGV,
        libc::SIGPIPE,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGXCPU,
    ];
    for signal in usual.into_iter().chain(real_time) {
        let script = format!("ulimit -c 0; kill -{signal} $$");
        let spawned = spawn(&quiet_sh(&script));
        assert_eq!(status(&spawned.child), signaled(signal));
    }
    nothing_left();
}

#[test]
fn a_dumped_core_is_reported() {
    let _one = one_at_a_time();
    setup();
    if limit(libc::RLIMIT_CORE).rlim_max == 0 {
        crate::common::skip("cores are forbidden here");
        return;
    }
    let temp = TempDir::new();
    let script = "ulimit -S -c $(ulimit -H -c); kill -SEGV $$";
    let command = quiet_sh(script).directory(Some(c(temp.path())));
    let dumped = Status::Signaled {
        signal: libc::SIGSEGV as u8,
        core: true,
    };
    assert_eq!(status(&spawn(&command).child), dumped);
    nothing_left();
}

#[test]
fn a_signal_reaches_a_running_program_and_is_esrch_after_its_end() {
    let _one = one_at_a_time();
    setup();
    let spawned = spawn(&sh(
        "trap 'echo usr1' USR1; echo ready; while :; do read x; done",
    ));
    let stdout = spawned.stdout.unwrap();
    assert_eq!(line(&stdout), "ready");
    let usr1 = Signal::from_name("sigusr1").unwrap();
    assert_eq!(spawned.child.signal(usr1), Ok(()));
    assert_eq!(line(&stdout), "usr1");
    assert_eq!(spawned.child.try_status(), None);
    assert_eq!(spawned.child.signal(Signal::TERM), Ok(()));
    assert_eq!(status(&spawned.child), signaled(libc::SIGTERM));
    for signal in [Signal::TERM, Signal::KILL, Signal::CONT] {
        assert_eq!(spawned.child.signal(signal), Err(Errno::ESRCH));
    }
    nothing_left();
}

#[test]
fn a_stopped_program_has_not_ended() {
    let _one = one_at_a_time();
    setup();
    let spawned = spawn(&sh("echo ready; exec cat"));
    line(spawned.stdout.as_ref().unwrap());
    let stop = Signal::from_name("sigstop").unwrap();
    assert_eq!(spawned.child.signal(stop), Ok(()));
    let stat = format!("/proc/{}/stat", spawned.child.pid());
    soon("it is stopped", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
    assert_eq!(spawned.child.try_status(), None);
    assert_eq!(spawned.child.signal(Signal::KILL), Ok(()));
    assert_eq!(status(&spawned.child), signaled(libc::SIGKILL));
    nothing_left();
}

#[test]
fn background_children_do_not_delay_the_status_of_a_program() {
    let _one = one_at_a_time();
    setup();
    let spawned = spawn(&sh("exec 4<&0; cat <&4 & exit 5"));
    assert_eq!(status(&spawned.child), Status::Exited(5));
    // This ends `cat`, which may have become a child of this process.
    drop(spawned.stdin);
    bury_strangers();
    nothing_left();
}

#[test]
fn a_known_status_stays_and_its_pidfd_is_closed() {
    let _one = one_at_a_time();
    setup();
    let before = descriptors();
    let spawned = spawn(&quiet_sh("exit 9"));
    assert_eq!(exit::open_count(), 1);
    assert_eq!(status(&spawned.child), Status::Exited(9));
    assert_eq!(exit::open_count(), 0);
    assert_eq!(descriptors(), before);
    for _ in 0..100 {
        assert_eq!(spawned.child.try_status(), Some(Status::Exited(9)));
    }
    assert!(spawned.child.watch().is_none());
    nothing_left();
}

#[test]
fn a_watched_pidfd_stays_open_until_it_is_unwatched() {
    let _one = one_at_a_time();
    setup();
    let before = descriptors();
    let spawned = spawn(&quiet_sh("exit 0"));
    let pidfd = spawned.child.watch().unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&**pidfd);
    drop(pidfd);
    soon("its status is known", || {
        spawned.child.try_status().is_some()
    });
    assert_eq!(exit::open_count(), 1);
    assert!(descriptors().contains(&number));
    // It can be watched any number of times, and stays readable.
    assert!(becomes_readable(number, std::time::Duration::ZERO));
    assert!(spawned.child.watch().is_some());
    spawned.child.unwatched();
    assert_eq!(exit::open_count(), 0);
    assert_eq!(descriptors(), before);
    nothing_left();
}

#[test]
fn a_dropped_child_runs_on_and_leaves_no_descriptor() {
    let _one = one_at_a_time();
    setup();
    let before = descriptors();
    let Spawned {
        child,
        stdin,
        stdout,
        ..
    } = spawn(&sh("echo ready; cat; echo end"));
    let stdout = stdout.unwrap();
    assert_eq!(line(&stdout), "ready");
    drop(child);
    assert_eq!(exit::open_count(), 0);
    drop(stdin);
    assert_eq!(line(&stdout), "end");
    drop(stdout);
    assert_eq!(descriptors(), before);
    bury_strangers();
    nothing_left();
}

#[test]
fn many_programs_at_once_lose_no_status() {
    const THREADS: usize = 4;
    const EACH: usize = 60;
    let _one = one_at_a_time();
    setup();
    let before = descriptors();
    let together = Barrier::new(THREADS);
    let collected = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (together, collected) = (&together, &collected);
            scope.spawn(move || {
                together.wait();
                let spawned: Vec<(u8, Spawned)> = (0..EACH)
                    .map(|n| {
                        let code = (thread * EACH + n) as u8;
                        (code, spawn(&quiet_sh(&format!("exit {code}"))))
                    })
                    .collect();
                for (code, spawned) in spawned {
                    assert_eq!(status(&spawned.child), Status::Exited(code));
                    collected.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(collected.into_inner(), THREADS * EACH);
    assert_eq!(descriptors(), before);
    nothing_left();
}

#[test]
fn concurrent_callers_get_the_same_status() {
    let _one = one_at_a_time();
    setup();
    for code in 0..50 {
        let spawned = spawn(&sh(&format!("cat; exit {code}")));
        let child = &spawned.child;
        let together = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    together.wait();
                    loop {
                        if let Some(found) = child.try_status() {
                            break assert_eq!(found, Status::Exited(code));
                        }
                    }
                });
            }
            together.wait();
            drop(spawned.stdin);
            assert_eq!(status(child), Status::Exited(code));
        });
    }
    nothing_left();
}

#[test]
fn a_program_that_cannot_be_run_leaves_no_zombie() {
    let _one = one_at_a_time();
    setup();
    for _ in 0..50 {
        assert!(crate::common::try_spawn(&command("/nonexistent", &[])).is_err());
    }
    nothing_left();
}
