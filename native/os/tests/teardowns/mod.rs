//! Commands under teardown, on real processes, wherever statuses come from. `crate::setup`
//! chooses the source.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use exile_os::{Child, Command, Signal, Spawned, Status, Teardown, child, reaper};

use crate::common::{
    PATIENCE, Stranger, descriptors, eventually, has_children, line, one_at_a_time, quiet_sh,
    read_to_end, sh, soon, spawn, status,
};
use crate::{REACHES_GROUP_AFTER_ITS_LEADER, setup};

const MOMENT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(1000);

/// A wait that the command is not expected to need.
fn term_then_wait(wait: Duration) -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![(Signal::TERM, wait)],
    }
}

fn at_once() -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![],
    }
}

fn signaled(signal: Signal) -> Status {
    Status::Signaled {
        signal: signal.number() as u8,
        core: false,
    }
}

/// Where the reaper tells of the end of a command: with the name of the thread that told.
struct End(Receiver<Option<String>>);

impl End {
    fn of(child: &Arc<Child>, teardown: Teardown) -> End {
        let (sender, receiver) = channel();
        let tell = move || {
            let thread = std::thread::current().name().map(str::to_owned);
            sender.send(thread).unwrap();
        };
        reaper::terminate(child, teardown, Box::new(tell)).unwrap();
        End(receiver)
    }

    fn has_come(&self) -> bool {
        self.0.try_recv().is_ok()
    }

    /// Waits for it to be told, once.
    fn comes(self) {
        let thread = self.0.recv_timeout(PATIENCE).expect("the end is not told");
        assert_eq!(thread.as_deref(), Some("exile_reaper"));
        // What was to be called is called and gone.
        let again = self.0.recv_timeout(PATIENCE);
        assert_eq!(again, Err(RecvTimeoutError::Disconnected));
    }
}

/// What must be as it was when a test is over. One test at a time.
struct Before {
    descriptors: Vec<i32>,
    _one: std::sync::MutexGuard<'static, ()>,
}

fn before() -> Before {
    let one = one_at_a_time();
    setup();
    reaper::start().unwrap();
    Before {
        descriptors: descriptors(),
        _one: one,
    }
}

impl Before {
    /// To be called when all that the test has spawned is dropped.
    fn must_be_restored(self) {
        soon("no teardown is under way", || reaper::under_way() == 0);
        assert_eq!(child::open_count(), 0);
        assert_eq!(descriptors(), self.descriptors);
        soon("the kernel has forgotten all children", || !has_children());
    }
}

/// Spawns a script that says `ready` when its traps are set.
fn ready(script: &str) -> Spawned {
    let spawned = spawn(&sh(script));
    assert_eq!(line(spawned.stdout.as_ref().unwrap()), "ready");
    spawned
}

/// Spawns a script that first tells the pid of a background child.
fn with_background_child(script: &str) -> (Spawned, Stranger) {
    let spawned = spawn(&sh(script));
    let pid = line(spawned.stdout.as_ref().unwrap());
    (spawned, Stranger::of(&pid).unwrap())
}

#[test]
fn a_command_that_ends_on_the_first_signal_gets_no_other() {
    let before = before();
    let spawned = ready("trap 'exit 5' TERM; echo ready; while :; do read x; done");
    let end = End::of(&spawned.child, term_then_wait(LONG));
    end.comes();
    assert_eq!(spawned.child.try_status(), Some(Status::Exited(5)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn a_command_that_ignores_sigterm_is_killed_when_its_time_is_up() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    let start = Instant::now();
    let end = End::of(&spawned.child, term_then_wait(MOMENT));
    end.comes();
    assert!(start.elapsed() >= MOMENT);
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn every_step_of_the_sequence_is_taken_in_order() {
    let before = before();
    let script = "trap 'echo hup' HUP; trap 'echo term' TERM; trap 'echo int' INT; echo ready; \
                  while :; do read x; done";
    let spawned = ready(script);
    let signal = |name| Signal::from_name(name).unwrap();
    let teardown = Teardown {
        grace: MOMENT,
        steps: vec![
            (signal("sighup"), 4 * MOMENT),
            (signal("sigterm"), 4 * MOMENT),
            (signal("sigint"), 4 * MOMENT),
        ],
    };
    let start = Instant::now();
    let end = End::of(&spawned.child, teardown);
    let stdout = spawned.stdout.as_ref().unwrap();
    for (n, name) in ["hup", "term", "int"].into_iter().enumerate() {
        assert_eq!(line(stdout), name);
        assert!(start.elapsed() >= MOMENT + 4 * MOMENT * n as u32);
    }
    end.comes();
    assert!(start.elapsed() >= 13 * MOMENT);
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn without_grace_and_steps_a_command_is_killed_at_once() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    End::of(&spawned.child, at_once()).comes();
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

fn stop(spawned: &Spawned) {
    let stop = Signal::from_name("sigstop").unwrap();
    spawned.child.signal(stop).unwrap();
    let stat = format!("/proc/{}/stat", spawned.child.pid());
    soon("it is stopped", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
}

#[test]
fn a_stopped_command_goes_on_to_receive_its_signal() {
    let before = before();
    let spawned = ready("trap 'exit 6' TERM; echo ready; while :; do read x; done");
    stop(&spawned);
    End::of(&spawned.child, term_then_wait(LONG)).comes();
    assert_eq!(spawned.child.try_status(), Some(Status::Exited(6)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn a_stopped_command_that_ignores_sigterm_is_killed() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    stop(&spawned);
    End::of(&spawned.child, term_then_wait(MOMENT)).comes();
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn the_whole_group_gets_the_signal() {
    let before = before();
    let (spawned, grandchild) = with_background_child("sleep 1000 & echo $!; wait");
    End::of(&spawned.child, term_then_wait(MOMENT)).comes();
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::TERM)));
    assert!(grandchild.ends());
    drop((spawned, grandchild));
    before.must_be_restored();
}

#[test]
fn the_whole_group_is_killed() {
    let before = before();
    let script = "trap '' TERM; sleep 1000 & echo $!; wait";
    let (spawned, grandchild) = with_background_child(script);
    End::of(&spawned.child, at_once()).comes();
    assert!(grandchild.ends());
    drop((spawned, grandchild));
    before.must_be_restored();
}

#[test]
fn a_member_of_the_group_that_outlives_its_leader_is_killed_in_the_end() {
    let before = before();
    // The background child ignores SIGTERM from birth, the command does not.
    let script = "trap '' TERM; sleep 1000 & trap - TERM; echo $!; wait";
    let (spawned, grandchild) = with_background_child(script);
    let child = &spawned.child;
    End::of(child, term_then_wait(MOMENT)).comes();
    assert_eq!(child.try_status(), Some(signaled(Signal::TERM)));
    assert!(grandchild.ends());
    drop((spawned, grandchild));
    before.must_be_restored();
}

#[test]
fn a_member_of_the_group_that_outlives_its_leader_has_its_time_where_it_can_be_reached() {
    let before = before();
    // The command dies of SIGTERM. Its child, which reads the pipe as descriptor 4, tidies up
    // when that has ended.
    let script = "exec 4<&0; (trap 'cat <&4; echo tidy; exit' TERM; echo ready; read x <&4) & wait";
    let mut spawned = ready(script);
    let end = End::of(&spawned.child, term_then_wait(LONG));
    end.comes();
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::TERM)));
    drop(spawned.stdin.take());
    let output = read_to_end(spawned.stdout.as_ref().unwrap());
    let expected: &[u8] = if REACHES_GROUP_AFTER_ITS_LEADER {
        b"tidy\n"
    } else {
        b""
    };
    assert_eq!(output, expected);
    drop(spawned);
    // Long before the next signal is due: nobody is left to get it.
    before.must_be_restored();
}

#[test]
fn a_command_that_ends_by_itself_in_time_leaves_its_group_alone() {
    let before = before();
    let script = "exec 4<&0; trap 'exit 7' USR1; (read x <&4; echo alive) & echo $!; wait";
    let (spawned, grandchild) = with_background_child(script);
    let patient = Teardown {
        grace: LONG,
        steps: vec![],
    };
    let end = End::of(&spawned.child, patient);
    assert_eq!(reaper::under_way(), 1);
    assert!(!end.has_come());
    let usr1 = Signal::from_name("sigusr1").unwrap();
    assert_eq!(spawned.child.signal(usr1), Ok(()));
    end.comes();
    assert_eq!(spawned.child.try_status(), Some(Status::Exited(7)));
    soon("the teardown is over", || reaper::under_way() == 0);
    // No SIGKILL is on its way to it: it goes on.
    let stdin = spawned.stdin.as_ref().unwrap();
    assert_eq!(stdin.write(&[IoSlice::new(b"go on\n")]), Ok(Some(6)));
    assert_eq!(line(spawned.stdout.as_ref().unwrap()), "alive");
    assert!(grandchild.ends());
    drop((spawned, grandchild));
    before.must_be_restored();
}

#[test]
fn a_command_that_had_ended_before_leaves_its_group_alone_and_its_end_is_told() {
    let before = before();
    let script = "sleep 1000 & echo $!; exit 8";
    for known in [true, false] {
        let (spawned, grandchild) = with_background_child(script);
        if known {
            assert_eq!(status(&spawned.child), Status::Exited(8));
        } else {
            let end = spawned.child.watch().unwrap();
            let number = std::os::fd::AsRawFd::as_raw_fd(&**end);
            assert!(crate::common::becomes_readable(number, PATIENCE));
            spawned.child.unwatched();
        }
        let patient = Teardown {
            grace: MOMENT,
            steps: vec![],
        };
        End::of(&spawned.child, patient).comes();
        assert_eq!(spawned.child.try_status(), Some(Status::Exited(8)));
        assert!(!grandchild.has_ended());
        grandchild.kill();
        assert!(grandchild.ends());
    }
    before.must_be_restored();
}

#[test]
fn every_teardown_of_a_command_tells_its_end() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    let ends: Vec<End> = [LONG, 2 * MOMENT, MOMENT, LONG]
        .into_iter()
        .map(|wait| End::of(&spawned.child, term_then_wait(wait)))
        .collect();
    ends.into_iter().for_each(End::comes);
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn a_shorter_teardown_overtakes_a_longer_one() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    let long = End::of(&spawned.child, term_then_wait(LONG));
    let start = Instant::now();
    End::of(&spawned.child, at_once()).comes();
    assert!(start.elapsed() < LONG);
    long.comes();
    drop(spawned);
    // Nobody is left in the group: the longer one does not go on.
    before.must_be_restored();
}

#[test]
fn the_end_is_told_though_others_learn_the_status_first() {
    const ROUNDS: u32 = 300;
    let before = before();
    let ends = Arc::new(AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let spawned = spawn(&quiet_sh("exit 0"));
        let told = Arc::clone(&ends);
        let count = move || {
            told.fetch_add(1, Ordering::AcqRel);
        };
        let patient = Teardown {
            grace: LONG,
            steps: vec![],
        };
        reaper::terminate(&spawned.child, patient, Box::new(count)).unwrap();
        // All the time, up to its end.
        while spawned.child.try_status().is_none() {
            std::hint::spin_loop();
        }
        let expected = round as usize + 1;
        eventually("the end is told", || {
            (ends.load(Ordering::Acquire) == expected).then_some(())
        });
    }
    before.must_be_restored();
}

#[test]
fn hundreds_of_commands_end_at_once() {
    const COUNT: usize = 300;
    let before = before();
    let commands: Vec<Spawned> = (0..COUNT)
        // One in three ends on SIGTERM, one has to be killed, one ends by itself.
        .map(|n| match n % 3 {
            0 => ready("trap 'exit 4' TERM; echo ready; while :; do read x; done"),
            1 => ready("trap '' TERM; echo ready; while :; do read x; done"),
            _ => ready("echo ready; exit 3"),
        })
        .collect();
    let patient = Teardown {
        grace: LONG,
        steps: vec![],
    };
    let teardowns = [term_then_wait(LONG), term_then_wait(MOMENT), patient];
    let ends: Vec<End> = commands
        .iter()
        .zip(teardowns.into_iter().cycle())
        .map(|(spawned, teardown)| End::of(&spawned.child, teardown))
        .collect();
    ends.into_iter().for_each(End::comes);
    for (n, spawned) in commands.iter().enumerate() {
        let expected = match n % 3 {
            0 => Status::Exited(4),
            1 => signaled(Signal::KILL),
            _ => Status::Exited(3),
        };
        assert_eq!(spawned.child.try_status(), Some(expected), "number {n}");
    }
    drop(commands);
    before.must_be_restored();
}

#[test]
fn a_command_that_nobody_else_holds_is_ended() {
    let before = before();
    let command: Command = sh("trap '' TERM; sleep 1000 & echo $!; wait");
    let Spawned { child, stdout, .. } = spawn(&command);
    let grandchild = Stranger::of(&line(stdout.as_ref().unwrap())).unwrap();
    let end = End::of(&child, at_once());
    drop((child, stdout));
    end.comes();
    assert!(grandchild.ends());
    drop(grandchild);
    before.must_be_restored();
}
