//! Statuses from `waitid`, with SIGCHLD at its default, and zombies that Exile did not spawn.
#![cfg(not(exile_portable))]

mod common;
mod exits;

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{
    adopt_orphans, becomes_readable, has_children, is_zombie_of_ours, line, one_at_a_time,
    quiet_sh, sh, soon, spawn, status,
};
use exile_os::exit::{self, Source};
use exile_os::{Spawned, Status};

fn setup() {
    common::sigchld(libc::SIG_DFL);
    assert_eq!(exit::choose(Some(Source::Wait)), Ok(Source::Wait));
}

fn bury_strangers() {
    soon("nobody is left to bury", || {
        exit::sweep();
        !has_children()
    });
}

/// A zombie that this process inherited.
fn stranger() -> libc::pid_t {
    adopt_orphans();
    let parent = spawn(&sh("exec 4<&0; cat <&4 & echo $!"));
    let pid = line(parent.stdout.as_ref().unwrap()).parse().unwrap();
    assert_eq!(status(&parent.child), Status::Exited(0));
    drop(parent.stdin);
    soon("the orphan is ours and has ended", || {
        is_zombie_of_ours(pid)
    });
    pid
}

#[test]
fn a_sweep_reaps_zombies_that_nothing_waits_for() {
    let _one = one_at_a_time();
    setup();
    for _ in 0..20 {
        let strangers = [stranger(), stranger(), stranger()];
        exit::sweep();
        assert!(!strangers.into_iter().any(is_zombie_of_ours));
        assert!(!has_children());
    }
}

#[test]
fn a_spawn_on_a_slow_disk_delays_nothing_else() {
    let _one = one_at_a_time();
    setup();
    common::disposition_of(libc::SIGIO, libc::SIG_IGN);
    let stranger = stranger();
    let directory = common::TempDir::new();
    let path = directory.path().join("slow");
    std::fs::copy("/bin/true", &path).unwrap();
    // A file under a lease can be executed only after the lease is released.
    let leased = std::fs::File::open(&path).unwrap();
    common::lease(&leased, libc::F_WRLCK);
    let slow = std::thread::spawn({
        let path = path.clone();
        move || status(&spawn(&common::command(path, &[])).child)
    });
    soon("the spawn hangs", || common::lease_is_being_broken(&leased));

    let start = std::time::Instant::now();
    exit::sweep();
    assert_eq!(status(&spawn(&quiet_sh("exit 3")).child), Status::Exited(3));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(is_zombie_of_ours(stranger));

    common::lease(&leased, libc::F_UNLCK);
    assert_eq!(slow.join().unwrap(), Status::Exited(0));
    bury_strangers();
}

#[test]
fn a_sweep_keeps_the_statuses_of_our_children() {
    let _one = one_at_a_time();
    setup();
    let stranger = stranger();
    let spawned: Vec<Spawned> = (0..20)
        .map(|code| spawn(&quiet_sh(&format!("exit {code}"))))
        .collect();
    for spawned in &spawned {
        soon("it is a zombie", || is_zombie_of_ours(spawned.child.pid()));
    }
    exit::sweep();
    assert!(!is_zombie_of_ours(stranger));
    assert!(!has_children());
    // The sweep has collected all statuses and signals every watcher.
    for (code, spawned) in spawned.iter().enumerate() {
        let end = spawned.child.watch().unwrap();
        assert!(becomes_readable(end.as_raw_fd(), Duration::ZERO));
        spawned.child.unwatched();
        assert_eq!(spawned.child.try_status(), Some(Status::Exited(code as u8)));
    }
    assert_eq!(exit::open_count(), 0);
}

#[test]
fn a_sweep_leaves_running_programs_alone() {
    let _one = one_at_a_time();
    setup();
    let spawned = spawn(&sh("echo ready; cat; exit 8"));
    line(spawned.stdout.as_ref().unwrap());
    exit::sweep();
    assert_eq!(spawned.child.try_status(), None);
    drop(spawned.stdin);
    assert_eq!(status(&spawned.child), Status::Exited(8));
    assert!(!has_children());
}

#[test]
fn a_sweep_with_nothing_to_do_does_nothing() {
    let _one = one_at_a_time();
    setup();
    exit::sweep();
    assert!(!has_children());
}

#[test]
fn a_sweep_reaps_a_program_whose_handle_was_dropped() {
    let _one = one_at_a_time();
    setup();
    let spawned = spawn(&quiet_sh("exit 0"));
    let pid = spawned.child.pid();
    drop(spawned);
    soon("it is a zombie", || is_zombie_of_ours(pid));
    exit::sweep();
    assert!(!has_children());
}

#[test]
fn spawning_while_sweeping_loses_no_status() {
    const THREADS: usize = 3;
    const EACH: usize = 100;
    let _one = one_at_a_time();
    setup();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                exit::sweep();
                std::thread::yield_now();
            }
        });
        let spawners: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    for n in 0..EACH {
                        let code = (thread * EACH + n) as u8;
                        let spawned = spawn(&quiet_sh(&format!("exit {code}")));
                        assert_eq!(status(&spawned.child), Status::Exited(code));
                    }
                })
            })
            .collect();
        let ended = spawners.into_iter().map(|spawner| spawner.join().is_ok());
        let ended: Vec<bool> = ended.collect();
        done.store(true, Ordering::Release);
        assert_eq!(ended, [true; THREADS]);
        sweeper.join().unwrap();
    });
    assert_eq!(exit::open_count(), 0);
    assert!(!has_children());
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
