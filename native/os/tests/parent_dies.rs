//! A program does not outlive the process or the thread that spawned it.
#![cfg(not(exile_portable))]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;

use common::{Stranger, is_alone, myself, quiet_sh, sh, spawn, status};
use exile_os::{Signal, Status};

/// The name of the test that acts as the process that spawns and is killed.
const SPAWNER: &str = "spawner";

#[test]
fn spawner() {
    if !is_alone(SPAWNER) {
        return;
    }
    let spawned = spawn(&sh("trap '' TERM HUP INT; echo ready; exec cat"));
    common::line(spawned.stdout.as_ref().unwrap());
    println!("\npid {}", spawned.child.pid());
    status(&spawned.child);
}

#[test]
fn a_program_is_killed_when_the_process_that_spawned_it_is_killed() {
    for _ in 0..10 {
        let mut spawner = myself(SPAWNER).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(spawner.stdout.take().unwrap()).lines();
        let pid = lines
            .map(Result::unwrap)
            .find_map(|line| line.strip_prefix("pid ").map(str::to_owned))
            .unwrap();
        let program = Stranger::of(&pid).unwrap();
        assert!(!program.has_ended());
        spawner.kill().unwrap();
        spawner.wait().unwrap();
        assert!(program.ends());
    }
}

#[test]
fn a_program_is_killed_when_the_thread_that_spawned_it_ends() {
    let (end, ended) = mpsc::channel::<()>();
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        sender.send(spawn(&sh("echo ready; exec cat"))).unwrap();
        // Blocks until the sender is dropped.
        let _ = ended.recv();
    });
    let spawned = receiver.recv().unwrap();
    common::line(spawned.stdout.as_ref().unwrap());
    assert_eq!(spawned.child.try_status(), None);
    drop(end);
    thread.join().unwrap();
    let killed = Status::Signaled {
        signal: Signal::KILL.number() as u8,
        core: false,
    };
    assert_eq!(status(&spawned.child), killed);
    // Others are not affected.
    assert_eq!(status(&spawn(&quiet_sh("exit 3")).child), Status::Exited(3));
}
