//! A cancelled spawn fails and leaves nothing behind, even while the program is being executed.
#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    Run, Stranger, TempDir, c, command, has_children, one_at_a_time, quiet_sh, sh, sigchld, soon,
    spawn, status, table,
};
use exile_os::{Attempt, SpawnError, Status, Stdio, exit};

/// Longer than a cancelled spawn may take, and much less than the kernel waits for a lease.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A program that cannot be executed until the lease on it is released.
struct Leased {
    path: PathBuf,
    file: File,
    _directory: TempDir,
}

impl Leased {
    fn new() -> Leased {
        common::disposition_of(libc::SIGIO, libc::SIG_IGN);
        let directory = TempDir::new();
        let path = directory.path().join("slow");
        std::fs::copy("/bin/true", &path).unwrap();
        let file = File::open(&path).unwrap();
        common::lease(&file, libc::F_WRLCK);
        Leased {
            path,
            file,
            _directory: directory,
        }
    }

    fn command(&self) -> Run {
        command(&self.path, &[]).stdio(Stdio::Pipe, Stdio::Pipe, Stdio::Pipe)
    }

    fn is_wanted(&self) -> bool {
        common::lease_is_being_broken(&self.file)
    }

    fn give_up(&self) {
        common::lease(&self.file, libc::F_UNLCK);
    }
}

fn nothing_left(before: &[(i32, String)]) {
    assert_eq!(table(), before);
    assert_eq!(exit::open_count(), 0);
    soon("no zombie is left", || !has_children());
}

#[test]
fn a_spawn_cancelled_before_it_begins_does_nothing() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let out = temp.path().join("out");
    let before = table();
    let attempt = Attempt::new();
    attempt.cancel();
    let (path, append) = (c(&out), false);
    let command = quiet_sh("exit 0").stdio(Stdio::Null, Stdio::Write { path, append }, Stdio::Null);
    let error = command.spawn(&attempt).unwrap_err();
    assert_eq!(error, SpawnError::CANCELLED);
    assert!(!out.exists());
    nothing_left(&before);
}

#[test]
fn a_spawn_that_hangs_in_exec_is_cancelled_at_once() {
    let _one = one_at_a_time();
    for _ in 0..10 {
        for ignored in [false, true] {
            // Cancelling works whether the kernel or this process reaps.
            if !cfg!(exile_portable) && ignored {
                sigchld(libc::SIG_IGN);
            }
            let leased = Leased::new();
            let before = table();
            let attempt = Attempt::new();
            let command = leased.command();
            std::thread::scope(|scope| {
                let spawning = scope.spawn(|| command.spawn(&attempt).err());
                soon("the exec hangs", || leased.is_wanted());
                let start = Instant::now();
                attempt.cancel();
                if cfg!(exile_portable) {
                    // With posix_spawn, the child cannot be killed here.
                    leased.give_up();
                }
                assert_eq!(spawning.join().unwrap(), Some(SpawnError::CANCELLED));
                assert!(start.elapsed() < AT_ONCE);
            });
            nothing_left(&before);
            sigchld(libc::SIG_DFL);
        }
    }
}

#[cfg(not(exile_portable))]
#[test]
fn a_hanging_spawn_is_cancelled_with_every_source_that_reaps() {
    use exile_os::exit::{self, Source};
    let _one = one_at_a_time();
    common::alone(
        "a_hanging_spawn_is_cancelled_with_every_source_that_reaps",
        || {
            for source in [Source::Wait, Source::Portable] {
                assert_eq!(exit::choose(Some(source)), Ok(source));
                // The first spawn starts the thread that waits, where there is one.
                assert_eq!(status(&spawn(&quiet_sh("exit 1")).child), Status::Exited(1));
                for _ in 0..10 {
                    let leased = Leased::new();
                    let before = table();
                    let attempt = Attempt::new();
                    let command = leased.command();
                    std::thread::scope(|scope| {
                        let spawning = scope.spawn(|| command.spawn(&attempt).err());
                        soon("the exec hangs", || leased.is_wanted());
                        attempt.cancel();
                        assert_eq!(spawning.join().unwrap(), Some(SpawnError::CANCELLED));
                    });
                    assert!(!has_children());
                    nothing_left(&before);
                }
            }
        },
    );
}

#[test]
fn a_cancelled_pipeline_leaves_neither_commands_nor_their_children() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let told = temp.path().join("told");
    let script = |pause: &str| {
        format!(
            "sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; {pause}",
            told.display()
        )
    };
    // Without a pidfd, nothing identifies the group of a leader that has exited by itself.
    let leaders: &[&str] = if cfg!(exile_portable) {
        &["wait"]
    } else {
        &["wait", "exit 0"]
    };
    for pause in leaders {
        let _ = std::fs::remove_file(&told);
        let leased = Leased::new();
        let before = table();
        let attempt = Attempt::new();
        let commands = vec![quiet_sh(&script(pause)), leased.command(), sh("cat")];
        let member = std::thread::scope(|scope| {
            let spawning = scope.spawn(|| {
                let (stdin, stdout) = (Stdio::Null, Stdio::Null);
                common::spawn_pipeline(commands, stdin, stdout, &attempt).err()
            });
            soon("the second hangs", || leased.is_wanted());
            soon("the first has started a program", || told.exists());
            let member = Stranger::of(&std::fs::read_to_string(&told).unwrap()).unwrap();
            attempt.cancel();
            if cfg!(exile_portable) {
                leased.give_up();
            }
            assert_eq!(spawning.join().unwrap(), Some((1, SpawnError::CANCELLED)));
            member
        });
        assert!(member.ends());
        drop(member);
        nothing_left(&before);
    }
}

#[test]
fn a_spawn_that_waits_because_its_program_is_open_for_writing_is_cancelled() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let program = temp.path().join("true");
    std::fs::copy("/bin/true", &program).unwrap();
    let _writer = File::options().append(true).open(&program).unwrap();
    let before = table();
    let attempt = Attempt::new();
    let command = command(&program, &[]);
    std::thread::scope(|scope| {
        let spawning = scope.spawn(|| command.spawn(&attempt).err());
        soon("the spawn begins", || table().len() > before.len());
        attempt.cancel();
        assert_eq!(spawning.join().unwrap(), Some(SpawnError::CANCELLED));
    });
    nothing_left(&before);
}

#[test]
fn a_spawn_cancelled_at_any_time_succeeds_or_leaves_nothing() {
    let _one = one_at_a_time();
    let before = table();
    let mut outcomes = [0, 0];
    for round in 0..1500u32 {
        let attempt = Arc::new(Attempt::new());
        let cancelled = attempt.clone();
        let together = Arc::new(std::sync::Barrier::new(2));
        let thread = std::thread::spawn({
            let together = together.clone();
            move || {
                together.wait();
                // Cancels at a different moment in every round.
                for _ in 0..(round % 500) * 100 {
                    std::hint::spin_loop();
                }
                cancelled.cancel();
            }
        });
        together.wait();
        match quiet_sh("sleep 1000 & exit 7").spawn(&attempt) {
            Ok(spawned) => {
                outcomes[0] += 1;
                assert_eq!(status(&spawned.child), Status::Exited(7));
                // Exile leaves this group alone, so the test must kill it.
                let _ = nix::sys::signal::killpg(
                    nix::unistd::Pid::from_raw(spawned.child.pid()),
                    nix::sys::signal::SIGKILL,
                );
            }
            Err(error) => {
                outcomes[1] += 1;
                assert_eq!(error, SpawnError::CANCELLED);
            }
        }
        thread.join().unwrap();
        assert_eq!(table(), before);
    }
    assert!(outcomes[1] > 0, "{outcomes:?}");
    nothing_left(&before);
    assert_eq!(status(&spawn(&quiet_sh("exit 3")).child), Status::Exited(3));
}
