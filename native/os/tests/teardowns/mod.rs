//! Teardowns of real processes, with every source of statuses. `crate::setup` chooses the source.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use exile_os::life::{keeper, registry};
use exile_os::{Child, Errno, Life, Signal, Spawned, Status, Teardown, exit};

use crate::common::{
    PATIENCE, Relatives, Stranger, Turn, becomes_readable, descriptors, has_children, limit, line,
    no_lives, one_at_a_time, quiet_sh, read_to_end, set_limit, sh, soon, spawn, status,
};
use crate::{reaches_group_after_its_leader, setup};

const MOMENT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(1000);

/// Sends SIGTERM, and SIGKILL after `wait`.
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

/// The callbacks that a life calls.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Claimed,
    /// With the name of the calling thread.
    Ended(Option<String>),
    Over(Option<Errno>),
}

/// A life, and the callbacks it has called.
struct Story {
    life: Arc<Life<Relatives>>,
    told: Receiver<Told>,
    /// The results of teardowns that were reported before the exit was.
    over: RefCell<Vec<Option<Errno>>>,
}

impl Story {
    /// Begins the life of a process.
    fn of(child: &Arc<Child>) -> Story {
        let (sender, told) = channel();
        let tell = move |told| {
            // The test may have dropped the receiver.
            let _ = sender.send(told);
        };
        let [claimed, ended, over] = std::array::from_fn(|_| tell.clone());
        let thread = || std::thread::current().name().map(str::to_owned);
        let kin = Relatives {
            claimed: Box::new(move || claimed(Told::Claimed)),
            ended: Box::new(move || ended(Told::Ended(thread()))),
            over: Box::new(move |refused| over(Told::Over(refused))),
        };
        let life = Life::begin(Arc::clone(child), at_once(), kin).unwrap();
        Story {
            life,
            told,
            over: RefCell::default(),
        }
    }

    /// Begins the life of a process and claims it.
    fn of_claimed(child: &Arc<Child>, teardown: &Teardown) -> Story {
        let story = Story::of(child);
        assert!(story.life.end_by(teardown));
        assert_eq!(story.next(), Told::Claimed);
        story
    }

    fn next(&self) -> Told {
        let next = self.told.recv_timeout(PATIENCE);
        next.expect("nothing is told any more")
    }

    /// Returns whether no callback was called since the last one received.
    fn is_silent(&self) -> bool {
        self.told.try_recv().is_err()
    }

    /// Waits until the keeper reports the exit of the process.
    fn ends(&self) {
        let ended = Told::Ended(Some("exile_keeper".to_owned()));
        loop {
            match self.next() {
                told if told == ended => return,
                Told::Over(refused) => self.over.borrow_mut().push(refused),
                told => panic!("{told:?}"),
            }
        }
    }

    /// Waits for the last callback. Returns the result of every teardown that was over.
    fn last(self) -> Vec<Option<Errno>> {
        drop(self.life);
        let mut over = self.over.into_inner();
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(Told::Over(refused)) => over.push(refused),
                Ok(Told::Ended(_)) => {}
                Ok(Told::Claimed) => panic!("it was claimed again"),
                Err(RecvTimeoutError::Disconnected) => return over,
                Err(RecvTimeoutError::Timeout) => panic!("its life goes on"),
            }
        }
    }

    /// Waits until the process has exited and its teardown is over, and asserts that the end of the
    /// teardown was reported exactly once.
    fn must_be_over(self) {
        assert_eq!(self.last(), [None]);
    }
}

/// The state that a test must restore. Holds the lock that runs one test at a time.
struct Before {
    descriptors: Vec<i32>,
    _one: Turn,
}

fn before() -> Before {
    let one = one_at_a_time();
    setup();
    set_limit(libc::RLIMIT_NOFILE, limit(libc::RLIMIT_NOFILE).rlim_max);
    keeper::start().unwrap();
    Before {
        descriptors: descriptors(),
        _one: one,
    }
}

impl Before {
    /// Must be called after everything that the test has spawned is dropped.
    fn must_be_restored(self) {
        no_lives();
        assert_eq!(exit::open_count(), 0);
        assert_eq!(descriptors(), self.descriptors);
        soon("the kernel has forgotten all children", || !has_children());
    }
}

/// Spawns a script that prints `ready` when its traps are set, and waits for that.
fn ready(script: &str) -> Spawned {
    let spawned = spawn(&sh(script));
    assert_eq!(line(spawned.stdout.as_ref().unwrap()), "ready");
    spawned
}

/// Spawns a script that first prints the pid of a background child.
fn with_background_child(script: &str) -> (Spawned, Stranger) {
    let spawned = spawn(&sh(script));
    let pid = line(spawned.stdout.as_ref().unwrap());
    (spawned, Stranger::of(&pid).unwrap())
}

#[test]
fn a_command_that_ends_on_the_first_signal_gets_no_second_one() {
    let before = before();
    let spawned = ready("trap 'exit 5' TERM; echo ready; while :; do read x; done");
    Story::of_claimed(&spawned.child, &term_then_wait(LONG)).must_be_over();
    assert_eq!(spawned.child.try_status(), Some(Status::Exited(5)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn a_command_that_ignores_sigterm_is_killed_after_the_wait() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    let start = Instant::now();
    Story::of_claimed(&spawned.child, &term_then_wait(MOMENT)).must_be_over();
    assert!(start.elapsed() >= MOMENT);
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn all_steps_are_taken_in_order() {
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
    let story = Story::of_claimed(&spawned.child, &teardown);
    let stdout = spawned.stdout.as_ref().unwrap();
    for (n, name) in ["hup", "term", "int"].into_iter().enumerate() {
        assert_eq!(line(stdout), name);
        assert!(start.elapsed() >= MOMENT + 4 * MOMENT * n as u32);
    }
    story.must_be_over();
    assert!(start.elapsed() >= 13 * MOMENT);
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn without_grace_and_steps_a_command_is_killed_at_once() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    Story::of_claimed(&spawned.child, &at_once()).must_be_over();
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
fn a_stopped_command_is_continued_to_receive_its_signal() {
    let before = before();
    let spawned = ready("trap 'exit 6' TERM; echo ready; while :; do read x; done");
    stop(&spawned);
    Story::of_claimed(&spawned.child, &term_then_wait(LONG)).must_be_over();
    assert_eq!(spawned.child.try_status(), Some(Status::Exited(6)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn a_stopped_command_that_ignores_sigterm_is_killed() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    stop(&spawned);
    Story::of_claimed(&spawned.child, &term_then_wait(MOMENT)).must_be_over();
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn the_whole_group_gets_the_signal() {
    let before = before();
    let (spawned, grandchild) = with_background_child("sleep 1000 & echo $!; wait");
    Story::of_claimed(&spawned.child, &term_then_wait(MOMENT)).must_be_over();
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
    Story::of_claimed(&spawned.child, &at_once()).must_be_over();
    assert!(grandchild.ends());
    drop((spawned, grandchild));
    before.must_be_restored();
}

#[test]
fn a_group_member_that_outlives_its_leader_is_killed_at_the_end() {
    let before = before();
    // The background child ignores SIGTERM from its start; the command does not.
    let script = "trap '' TERM; sleep 1000 & trap - TERM; echo $!; wait";
    let (spawned, grandchild) = with_background_child(script);
    let child = &spawned.child;
    Story::of_claimed(child, &term_then_wait(MOMENT)).must_be_over();
    assert_eq!(child.try_status(), Some(signaled(Signal::TERM)));
    assert!(grandchild.ends());
    drop((spawned, grandchild));
    before.must_be_restored();
}

#[test]
fn a_group_member_that_outlives_its_leader_gets_the_whole_wait_if_it_can_be_reached() {
    let before = before();
    // SIGTERM kills the command. Its child reads the input pipe as descriptor 4 and cleans up at
    // end-of-file.
    let script = "exec 4<&0; (trap 'cat <&4; echo tidy; exit' TERM; echo ready; read x <&4) & wait";
    let mut spawned = ready(script);
    let story = Story::of_claimed(&spawned.child, &term_then_wait(LONG));
    story.ends();
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::TERM)));
    drop(spawned.stdin.take());
    let output = read_to_end(spawned.stdout.as_ref().unwrap());
    let expected: &[u8] = if reaches_group_after_its_leader() {
        b"tidy\n"
    } else {
        b""
    };
    assert_eq!(output, expected);
    drop(spawned);
    // The teardown is over long before the next signal is due, because the group is empty.
    story.must_be_over();
    before.must_be_restored();
}

/// Returns a teardown with a grace period that is longer than any test.
fn patient() -> Teardown {
    Teardown {
        grace: LONG,
        steps: vec![],
    }
}

/// Scripts that print the pid of a background child and exit when a pipe is closed: their input, or
/// their output.
const END_OF_A_PIPE: [(&str, Status); 2] = [
    ("sleep 1000 >&- & echo $!; exec cat", Status::Exited(0)),
    (
        "sleep 1000 >&- & echo $!; exec cat /dev/zero",
        Status::Signaled {
            signal: libc::SIGPIPE as u8,
            core: false,
        },
    ),
];

/// Closes our ends of the pipes of a process.
fn close_pipes(spawned: Spawned) -> Arc<Child> {
    spawned.child
}

#[test]
fn a_claimed_command_that_exits_because_a_pipe_is_closed_ends_with_its_group() {
    let before = before();
    for (script, expected) in END_OF_A_PIPE {
        for _ in 0..20 {
            let (spawned, grandchild) = with_background_child(script);
            let story = Story::of_claimed(&spawned.child, &patient());
            let child = close_pipes(spawned);
            story.must_be_over();
            assert_eq!(child.try_status(), Some(expected));
            assert!(grandchild.ends());
        }
    }
    before.must_be_restored();
}

#[test]
fn an_unclaimed_command_that_exits_because_a_pipe_is_closed_keeps_its_group() {
    let before = before();
    for (script, expected) in END_OF_A_PIPE {
        let (spawned, grandchild) = with_background_child(script);
        let story = Story::of(&spawned.child);
        let child = close_pipes(spawned);
        story.ends();
        assert_eq!(child.try_status(), Some(expected));
        // It is too late to claim the life.
        assert!(!story.life.end());
        assert!(!story.life.end_by(&term_then_wait(LONG)));
        assert_eq!(registry::under_way(), 0);
        assert_eq!(story.last(), []);
        assert!(!grandchild.has_ended());
        grandchild.kill();
        assert!(grandchild.ends());
    }
    before.must_be_restored();
}

#[test]
fn the_rest_of_a_group_is_signalled_at_once_when_its_leader_exits_in_its_grace() {
    let before = before();
    // The script starts no program, because a process that is created just when the signal arrives
    // could miss it.
    let script = "(trap 'echo term; exit' TERM; echo ready; while :; do :; done) & \
                  exec cat >/dev/null";
    let mut spawned = ready(script);
    let teardown = Teardown {
        grace: LONG,
        steps: vec![(Signal::TERM, LONG)],
    };
    let story = Story::of_claimed(&spawned.child, &teardown);
    spawned.stdin = None;
    story.must_be_over();
    assert_eq!(spawned.child.try_status(), Some(Status::Exited(0)));
    let expected: &[u8] = if reaches_group_after_its_leader() {
        b"term\n"
    } else {
        b""
    };
    assert_eq!(read_to_end(spawned.stdout.as_ref().unwrap()), expected);
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn a_command_that_had_ended_before_cannot_be_claimed_and_its_exit_is_reported() {
    let before = before();
    let script = "sleep 1000 & echo $!; exit 8";
    for known in [true, false] {
        let (spawned, grandchild) = with_background_child(script);
        if known {
            assert_eq!(status(&spawned.child), Status::Exited(8));
        } else {
            let end = spawned.child.end().unwrap();
            let number = std::os::fd::AsRawFd::as_raw_fd(&**end);
            assert!(becomes_readable(number, PATIENCE));
        }
        let story = Story::of(&spawned.child);
        assert!(!story.life.end_by(&at_once()));
        story.ends();
        assert_eq!(spawned.child.try_status(), Some(Status::Exited(8)));
        assert_eq!(story.last(), []);
        assert!(!grandchild.has_ended());
        grandchild.kill();
        assert!(grandchild.ends());
    }
    before.must_be_restored();
}

#[test]
fn a_command_has_one_teardown_however_often_it_is_requested() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    let story = Story::of_claimed(&spawned.child, &term_then_wait(LONG));
    for wait in [LONG, 2 * MOMENT, MOMENT, LONG] {
        assert!(story.life.end_by(&term_then_wait(wait)));
        assert_eq!(registry::under_way(), 1);
    }
    // The life was claimed once, and its teardown is over once.
    story.must_be_over();
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn a_second_request_repeats_no_signal_and_the_shorter_wait_applies() {
    let before = before();
    let script = "trap 'echo hup' HUP; trap 'echo term' TERM; trap 'echo int' INT; echo ready; \
                  while :; do read x; done";
    let spawned = ready(script);
    let stdout = spawned.stdout.as_ref().unwrap();
    let signal = |name| Signal::from_name(name).unwrap();
    let teardown = |first, second| Teardown {
        grace: Duration::ZERO,
        steps: vec![
            (signal("sighup"), first),
            (signal("sigterm"), second),
            (signal("sigint"), LONG),
        ],
    };
    let start = Instant::now();
    let story = Story::of_claimed(&spawned.child, &teardown(LONG, LONG));
    assert_eq!(line(stdout), "hup");
    // No signal is sent again or earlier.
    for _ in 0..3 {
        assert!(story.life.end_by(&teardown(LONG, LONG)));
    }
    std::thread::sleep(MOMENT);
    // The wait is measured from the first signal.
    assert!(story.life.end_by(&teardown(4 * MOMENT, LONG)));
    assert_eq!(line(stdout), "term");
    assert!(start.elapsed() >= 4 * MOMENT);
    // A longer wait does not delay the next signal.
    assert!(story.life.end_by(&teardown(LONG, MOMENT)));
    assert!(story.life.end_by(&teardown(LONG, LONG)));
    assert_eq!(line(stdout), "int");
    assert!(story.is_silent());
    // A teardown that sends only SIGKILL.
    assert!(story.life.end_by(&at_once()));
    story.must_be_over();
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    assert_eq!(read_to_end(stdout), b"");
    assert!(start.elapsed() < LONG);
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn a_longer_request_does_not_delay_a_shorter_teardown() {
    let before = before();
    let spawned = ready("trap '' TERM; echo ready; while :; do read x; done");
    let story = Story::of_claimed(&spawned.child, &term_then_wait(2 * MOMENT));
    for slow in [term_then_wait(LONG), patient()] {
        assert!(story.life.end_by(&slow));
    }
    story.must_be_over();
    assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    drop(spawned);
    before.must_be_restored();
}

#[test]
fn a_shorter_teardown_overtakes_a_longer_one() {
    let before = before();
    for begun in [false, true] {
        let spawned = ready("trap 'echo term' TERM; echo ready; while :; do read x; done");
        let story = if begun {
            let story = Story::of_claimed(&spawned.child, &term_then_wait(LONG));
            assert_eq!(line(spawned.stdout.as_ref().unwrap()), "term");
            story
        } else {
            Story::of_claimed(&spawned.child, &patient())
        };
        let start = Instant::now();
        assert!(story.life.end_by(&at_once()));
        // The group is empty, so the longer teardown does not go on.
        story.must_be_over();
        assert!(start.elapsed() < LONG);
        assert_eq!(spawned.child.try_status(), Some(signaled(Signal::KILL)));
    }
    before.must_be_restored();
}

#[test]
fn the_exit_is_reported_even_if_others_read_the_status_first() {
    const ROUNDS: u32 = 300;
    let before = before();
    for _ in 0..ROUNDS {
        let spawned = spawn(&quiet_sh("exit 0"));
        let story = Story::of(&spawned.child);
        // Polls the status continuously until the exit.
        while spawned.child.try_status().is_none() {
            std::hint::spin_loop();
        }
        story.ends();
        assert_eq!(story.last(), []);
    }
    before.must_be_restored();
}

#[test]
fn hundreds_of_commands_end_at_once() {
    const COUNT: usize = 300;
    let before = before();
    let commands: Vec<Spawned> = (0..COUNT)
        // Of every three, one exits on SIGTERM, one must be killed, and one exits by itself.
        .map(|n| match n % 3 {
            0 => ready("trap 'exit 4' TERM; echo ready; while :; do read x; done"),
            1 => ready("trap '' TERM; echo ready; while :; do read x; done"),
            _ => ready("echo ready; exit 3"),
        })
        .collect();
    let teardowns = [term_then_wait(LONG), term_then_wait(MOMENT), patient()];
    let stories: Vec<(bool, Story)> = commands
        .iter()
        .zip(teardowns.iter().cycle())
        .map(|(spawned, teardown)| {
            let story = Story::of(&spawned.child);
            (story.life.end_by(teardown), story)
        })
        .collect();
    for (n, (claimed, story)) in stories.into_iter().enumerate() {
        if n % 3 < 2 {
            assert!(claimed, "number {n}");
        }
        if claimed {
            assert_eq!(story.next(), Told::Claimed);
            story.must_be_over();
        } else {
            story.ends();
            assert_eq!(story.last(), []);
        }
    }
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
fn a_command_whose_handle_is_dropped_is_ended() {
    let before = before();
    let command = sh("trap '' TERM; sleep 1000 & echo $!; wait");
    let Spawned { child, stdout, .. } = spawn(&command);
    let grandchild = Stranger::of(&line(stdout.as_ref().unwrap())).unwrap();
    let story = Story::of_claimed(&child, &at_once());
    drop((child, stdout));
    story.must_be_over();
    assert!(grandchild.ends());
    drop(grandchild);
    before.must_be_restored();
}
