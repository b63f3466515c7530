//! A process and its pipe, with the keeper at work, while the process ends, its owner dies, others
//! wait for its end and handles are dropped.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use exile_os::exit::Source;
use exile_os::life::{keeper, registry};
use exile_os::model::world::{self, KILLED, is_open};
use exile_os::{Errno, Signal, Status, Teardown};
use loom::thread;

use super::explore;
use crate::bonds::{Bonds, Ends, Life, Until};
use crate::pipe::{Attempt, Grip, Pipe};
use crate::pipe_end::Fd;
use crate::process::{Outcome, Process};
use crate::question::Question;
use crate::resource::{
    Caller, Handle, Pid, Wait, die, messages, objects, ready, selected, stop_later, stop_now,
};
use crate::tether::Tether;
use crate::watch::monitor_count;

const OWNER: Pid = Pid(1);
const OTHER: Pid = Pid(2);
const WAITER: Pid = Pid(3);
const PROCESS: i32 = 7;
const STATUS: Status = Status::Exited(3);
const READERS: u32 = 100;
const WAITERS: u32 = 200;
const ALL: [Until; 3] = [Until::Exit, Until::Exhausted, Until::Over];

/// All orders take many minutes.
const BOUND: Option<usize> = Some(4);
/// The same where four bring too much.
const TIGHT_BOUND: Option<usize> = Some(3);

fn at_once() -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![],
    }
}

fn politely() -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![(Signal::TERM, Duration::from_millis(1))],
    }
}

/// A process of `OWNER`, as a spawner makes it known to the VM, that leads a group.
struct Made {
    process: Handle<Process>,
    /// Its pipe, which it reads to its end, and the pipe's number.
    pipe: Handle<Pipe>,
    grip: Handle<Grip>,
    fd: RawFd,
    /// The number of its exit fd.
    exit: RawFd,
}

impl Made {
    fn life(&self) -> &Arc<Life> {
        self.process.life()
    }
}

/// With a pipe of `OWNER`.
fn make(teardown: Teardown) -> Made {
    make_fed_by(OWNER, false, teardown)
}

/// With a pipe of `feeder`, whose death is the end of `all`.
fn make_fed_by(feeder: Pid, all: bool, teardown: Teardown) -> Made {
    let (child, exit) = world::child(PROCESS);
    world::tell(PROCESS);
    world::have_others(PROCESS);
    let caller = Caller::THREAD;
    let life = Life::begin(child, teardown, Bonds::new(OWNER)).unwrap();
    let process = Handle::of(caller, Arc::clone(&life), OWNER);
    let (end, _theirs) = world::pipe();
    let fd = end.as_raw_fd();
    world::hang_on(PROCESS, fd, STATUS);
    let ends = Ends {
        lives: vec![Arc::downgrade(&life)],
        all,
    };
    let pipe = Handle::open(
        Fd::Read(end),
        feeder,
        1,
        Question::default(),
        Box::new(ends),
    );
    life.kin().attach(caller, &pipe);
    pipe.set_owner(caller, feeder);
    Made {
        process,
        grip: pipe.clone().grip(),
        pipe,
        fd,
        exit,
    }
}

/// Runs `body` with each source that the keeper watches by itself, and with stop callbacks that come
/// at once, and with such that come when all else is over. In the end nothing may be left.
fn each(bound: Option<usize>, body: impl Fn() -> (RawFd, RawFd) + Send + Sync + Clone + 'static) {
    for source in [Source::Wait, Source::Pidfd] {
        for later in [false, true] {
            let body = body.clone();
            explore(source, bound, move || {
                if later {
                    stop_later();
                }
                let (fd, exit) = body();
                for pid in [OWNER, OTHER, WAITER] {
                    die(pid);
                }
                keeper::run();
                stop_now();
                assert!(!is_open(fd));
                assert!(!is_open(exit));
                assert_eq!((selected(), monitor_count(), objects()), (0, 0, 0));
                assert_eq!((keeper::living_count(), registry::under_way()), (0, 0));
            });
        }
    }
}

/// The kernel lets the process end if its pipe is closed by now.
fn hang_up() -> thread::JoinHandle<()> {
    thread::spawn(|| world::hang_up(PROCESS))
}

fn end() -> thread::JoinHandle<()> {
    thread::spawn(|| world::end(PROCESS, STATUS))
}

/// `OWNER` tries to read what is not there.
fn read(pipe: &Handle<Pipe>) -> bool {
    let wait = || Wait::of(OWNER, READERS);
    let tried = pipe.try_or_wait(OWNER, wait, false, |_| Ok(None::<()>));
    matches!(tried, Ok(Attempt::Waits))
}

fn group_goes_with(teardown: fn() -> Teardown, feeder: Pid, all: bool, dead: Pid) {
    each(BOUND, move || {
        let made = make_fed_by(feeder, all, teardown());
        let kernel = hang_up();
        let death = thread::spawn(move || die(dead));
        keeper::run();
        death.join().unwrap();
        kernel.join().unwrap();
        world::hang_up(PROCESS);
        keeper::run();
        assert!(!world::has_others(PROCESS));
        assert!(made.life().status(Caller::THREAD).is_some());
        (made.fd, made.exit)
    });
}

#[test]
fn a_group_goes_with_its_owner_whichever_of_its_callbacks_comes_first() {
    group_goes_with(at_once, OWNER, false, OWNER);
}

#[test]
fn a_group_goes_with_its_owner_although_its_leader_ends_before_the_first_signal() {
    group_goes_with(politely, OWNER, false, OWNER);
}

#[test]
fn a_group_goes_with_its_owner_although_somebody_else_feeds_it() {
    group_goes_with(at_once, OTHER, false, OWNER);
}

#[test]
fn a_group_goes_with_the_one_who_feeds_it_if_that_is_to_be_its_end() {
    group_goes_with(at_once, OTHER, true, OTHER);
}

#[test]
fn a_group_goes_with_the_one_who_is_to_feed_it_though_dead_before_that() {
    each(BOUND, || {
        let made = make_fed_by(OWNER, true, at_once());
        die(OTHER);
        let kernel = hang_up();
        assert!(made.pipe.set_owner(Caller::THREAD, OTHER));
        keeper::run();
        kernel.join().unwrap();
        world::hang_up(PROCESS);
        keeper::run();
        assert!(!world::has_others(PROCESS));
        assert!(made.life().status(Caller::THREAD).is_some());
        (made.fd, made.exit)
    });
}

#[test]
fn a_group_whose_leader_ends_since_its_pipe_is_closed_is_left_alone() {
    each(None, || {
        let made = make_fed_by(OTHER, false, at_once());
        let kernel = hang_up();
        let death = thread::spawn(|| die(OTHER));
        keeper::run();
        death.join().unwrap();
        kernel.join().unwrap();
        world::hang_up(PROCESS);
        keeper::run();
        assert_eq!(made.life().status(Caller::THREAD), Some(STATUS));
        die(OWNER);
        keeper::run();
        assert!(world::has_others(PROCESS));
        (made.fd, made.exit)
    });
}

#[test]
fn a_process_that_had_ended_by_itself_leaves_its_group_alone() {
    each(TIGHT_BOUND, || {
        let made = make(at_once());
        world::end(PROCESS, STATUS);
        let death = thread::spawn(|| die(OWNER));
        let other = {
            let process = made.process.clone();
            thread::spawn(move || process.life().status(Caller::THREAD))
        };
        keeper::run();
        death.join().unwrap();
        assert_eq!(other.join().unwrap(), Some(STATUS));
        keeper::run();
        assert!(world::has_others(PROCESS));
        assert_eq!(world::group_signals(PROCESS), []);
        (made.fd, made.exit)
    });
}

#[test]
fn a_process_ends_with_a_new_owner_and_not_with_the_old_one() {
    each(None, || {
        let made = make(at_once());
        made.process.set_owner(Caller::THREAD, OTHER);
        let death = thread::spawn(|| die(OWNER));
        let wait = Wait::of(WAITER, WAITERS);
        made.process.wait(Caller::THREAD, Until::Exit, wait);
        keeper::run();
        death.join().unwrap();
        keeper::run();
        // The pipe was not handed on, and nobody has let the process see its end.
        assert_eq!(made.life().status(Caller::THREAD), None);
        die(OTHER);
        keeper::run();
        assert_eq!(made.life().status(Caller::THREAD), Some(KILLED));
        assert_eq!(messages(WAITER, WAITERS), 1);
        (made.fd, made.exit)
    });
}

#[test]
fn a_process_that_is_handed_on_while_an_owner_dies_ends_with_the_last_of_them() {
    for dead in [OWNER, OTHER] {
        each(TIGHT_BOUND, move || {
            let made = make(at_once());
            let death = thread::spawn(move || die(dead));
            let kernel = hang_up();
            made.process.set_owner(Caller::THREAD, OTHER);
            keeper::run();
            death.join().unwrap();
            kernel.join().unwrap();
            if dead == OWNER {
                die(OTHER);
            }
            keeper::run();
            let status = made.life().status(Caller::THREAD);
            assert!([Some(KILLED), Some(STATUS)].contains(&status));
            // That it was ended by its pipe, before it was claimed, is an end of its own accord.
            assert!(status == Some(STATUS) || !world::has_others(PROCESS));
            (made.fd, made.exit)
        });
    }
}

#[test]
fn whoever_waits_gets_one_message_whatever_he_waits_for() {
    each(TIGHT_BOUND, || {
        let made = make(at_once());
        let kernel = end();
        let ender = {
            let life = Arc::clone(made.life());
            thread::spawn(move || life.end())
        };
        let outcomes = ALL.map(|until| {
            let wait = Wait::of(WAITER, WAITERS + until as u32);
            made.process.wait(Caller::THREAD, until, wait)
        });
        keeper::run();
        kernel.join().unwrap();
        ender.join().unwrap();
        keeper::run();
        for (until, outcome) in ALL.into_iter().zip(outcomes) {
            let count = messages(WAITER, WAITERS + until as u32);
            match outcome {
                Outcome::Waits => assert_eq!(count, 1),
                Outcome::Status(Some(STATUS | KILLED)) => assert_eq!(count, 0),
                _ => panic!("there is nothing to tell"),
            }
        }
        (made.fd, made.exit)
    });
}

#[test]
fn whoever_wants_the_end_is_told_that_it_is_over_when_nobody_is_left() {
    each(TIGHT_BOUND, || {
        let made = make(politely());
        let kernel = end();
        let keeper = thread::spawn(keeper::run);
        let claimed = made.life().end();
        let wait = Wait::of(WAITER, WAITERS);
        let outcome = made.process.wait(Caller::THREAD, Until::Over, wait);
        let over = matches!(outcome, Outcome::Status(_)) || messages(WAITER, WAITERS) == 1;
        assert!(!over || !claimed || !world::has_others(PROCESS));
        kernel.join().unwrap();
        keeper.join().unwrap();
        keeper::run();
        let waits = usize::from(matches!(outcome, Outcome::Waits));
        assert_eq!(messages(WAITER, WAITERS), waits);
        assert_eq!(world::has_others(PROCESS), !claimed);
        (made.fd, made.exit)
    });
}

#[test]
fn a_wait_that_is_given_up_has_a_message_or_has_none_as_it_was_told() {
    for until in ALL {
        each(None, move || {
            let made = make(at_once());
            let wait = Wait::of(WAITER, WAITERS);
            let outcome = made.process.wait(Caller::THREAD, until, wait);
            assert!(matches!(outcome, Outcome::Waits));
            let kernel = end();
            let keeper = thread::spawn(keeper::run);
            let is_meant = |wait: &Wait| wait.has(WAITERS);
            let given_up = made.life().kin().give_up(is_meant);
            kernel.join().unwrap();
            keeper.join().unwrap();
            keeper::run();
            assert_eq!(messages(WAITER, WAITERS), usize::from(!given_up));
            (made.fd, made.exit)
        });
    }
}

#[test]
fn a_refusal_is_told_to_those_who_wait_for_it_and_the_end_to_the_others() {
    each(BOUND, || {
        let made = make(at_once());
        world::forbid(PROCESS, true);
        let ender = {
            let life = Arc::clone(made.life());
            thread::spawn(move || assert!(life.end()))
        };
        let outcomes = ALL.map(|until| {
            let wait = Wait::of(WAITER, WAITERS + until as u32);
            made.process.wait(Caller::THREAD, until, wait)
        });
        let told = |until| messages(WAITER, WAITERS + until as u32);
        keeper::run();
        ender.join().unwrap();
        keeper::run();
        for (until, outcome) in ALL.into_iter().zip(&outcomes) {
            match outcome {
                Outcome::Waits => assert_eq!(told(until), usize::from(until != Until::Exit)),
                Outcome::Refused(Errno::EPERM) => assert_eq!(told(until), 0),
                _ => panic!("it runs"),
            }
        }
        world::end(PROCESS, STATUS);
        keeper::run();
        for (until, outcome) in ALL.into_iter().zip(&outcomes) {
            let waits = matches!(outcome, Outcome::Waits);
            assert_eq!(told(until), usize::from(waits));
        }
        (made.fd, made.exit)
    });
}

#[test]
fn a_pipe_that_nobody_grips_is_closed_when_the_process_has_ended() {
    for waits in [false, true] {
        each(TIGHT_BOUND, move || {
            let made = make(at_once());
            let (fd, exit) = (made.fd, made.exit);
            assert!(!waits || read(&made.pipe));
            let kernel = end();
            let dropper = {
                let (pipe, grip) = (made.pipe, made.grip);
                thread::spawn(move || {
                    // Who waits, grips.
                    let given_up = pipe.give_up(|wait| wait.has(READERS));
                    drop(grip);
                    given_up
                })
            };
            let event = waits.then(|| thread::spawn(move || ready(fd)));
            keeper::run();
            let given_up = dropper.join().unwrap();
            kernel.join().unwrap();
            if let Some(event) = event {
                event.join().unwrap();
            }
            keeper::run();
            stop_now();
            assert!(!is_open(fd));
            assert_eq!((selected(), monitor_count()), (0, 0));
            assert_eq!(messages(OWNER, READERS), usize::from(waits && !given_up));
            (fd, exit)
        });
    }
}

#[test]
fn a_pipe_that_nobody_grips_stays_open_while_the_process_runs() {
    each(None, || {
        let made = make(at_once());
        assert!(read(&made.pipe));
        assert!(made.pipe.give_up(|wait| wait.has(READERS)));
        let grip = made.grip;
        let dropper = thread::spawn(move || drop(grip));
        drop(made.pipe);
        keeper::run();
        dropper.join().unwrap();
        assert!(is_open(made.fd));
        drop(made.process);
        keeper::run();
        stop_now();
        assert!(is_open(made.fd));
        world::hang_up(PROCESS);
        assert!(world::is_there(PROCESS));
        (made.fd, made.exit)
    });
}

#[test]
fn a_pipe_is_closed_once_when_its_grip_is_dropped_and_its_owner_dies() {
    each(TIGHT_BOUND, || {
        let made = make(at_once());
        let (fd, exit) = (made.fd, made.exit);
        read(&made.pipe);
        let death = thread::spawn(|| die(OWNER));
        let kernel = hang_up();
        let grip = made.grip;
        let dropper = thread::spawn(move || drop(grip));
        keeper::run();
        death.join().unwrap();
        kernel.join().unwrap();
        dropper.join().unwrap();
        keeper::run();
        assert!(!world::has_others(PROCESS));
        (fd, exit)
    });
}

#[test]
fn a_pipe_that_comes_after_the_end_of_its_process_hears_of_it() {
    each(TIGHT_BOUND, || {
        let (child, exit) = world::child(PROCESS);
        world::tell(PROCESS);
        let kernel = end();
        let life = Life::begin(child, at_once(), Bonds::new(OWNER)).unwrap();
        let keeper = thread::spawn(keeper::run);
        let process = Handle::of(Caller::THREAD, Arc::clone(&life), OWNER);
        let (end, _theirs) = world::pipe();
        let fd = end.as_raw_fd();
        let ends = Ends {
            lives: vec![Arc::downgrade(&life)],
            all: false,
        };
        let pipe = Handle::open(Fd::Read(end), OWNER, 1, Question::default(), Box::new(ends));
        life.kin().attach(Caller::THREAD, &pipe);
        pipe.set_owner(Caller::THREAD, OWNER);
        drop(pipe.grip());
        kernel.join().unwrap();
        keeper.join().unwrap();
        keeper::run();
        assert!(!is_open(fd));
        assert_eq!((selected(), monitor_count()), (0, 0));
        drop(process);
        (fd, exit)
    });
}

#[test]
fn a_process_that_nobody_holds_lives_as_long_as_its_owner() {
    each(TIGHT_BOUND, || {
        let made = make(at_once());
        let (fd, exit) = (made.fd, made.exit);
        let death = thread::spawn(|| die(OWNER));
        let kernel = hang_up();
        let process = made.process;
        let life = Arc::clone(process.life());
        let dropper = thread::spawn(move || drop(process));
        drop((made.grip, made.pipe));
        keeper::run();
        death.join().unwrap();
        kernel.join().unwrap();
        dropper.join().unwrap();
        keeper::run();
        assert!(life.status(Caller::THREAD).is_some());
        assert!(!world::has_others(PROCESS));
        (fd, exit)
    });
}

/// Drops a tether of the process on a thread of its own.
fn drop_tether(made: &Made) -> thread::JoinHandle<()> {
    let tether: Handle<Tether> = Handle::to(vec![Arc::clone(made.life())]);
    tether.tell(Wait::of(WAITER, WAITERS));
    thread::spawn(move || drop(tether))
}

#[test]
fn a_process_ends_with_its_tether_which_tells() {
    each(BOUND, || {
        let made = make(at_once());
        let kernel = end();
        let dropper = drop_tether(&made);
        keeper::run();
        dropper.join().unwrap();
        kernel.join().unwrap();
        keeper::run();
        assert!(made.life().status(Caller::THREAD).is_some());
        assert_eq!(messages(WAITER, WAITERS), 1);
        (made.fd, made.exit)
    });
}

#[test]
fn a_group_goes_with_its_owner_and_its_tether_at_once() {
    each(TIGHT_BOUND, || {
        let made = make(at_once());
        let kernel = hang_up();
        let death = thread::spawn(|| die(OWNER));
        let dropper = drop_tether(&made);
        keeper::run();
        dropper.join().unwrap();
        death.join().unwrap();
        kernel.join().unwrap();
        keeper::run();
        assert!(!world::has_others(PROCESS));
        assert_eq!(messages(WAITER, WAITERS), 1);
        (made.fd, made.exit)
    });
}

#[test]
fn whoever_waits_while_a_refused_process_is_claimed_again_is_not_told_that_it_runs() {
    each(BOUND, || {
        let made = make(at_once());
        world::forbid(PROCESS, true);
        assert!(made.life().end());
        keeper::run();
        let ender = {
            let life = Arc::clone(made.life());
            thread::spawn(move || {
                world::forbid(PROCESS, false);
                life.end();
            })
        };
        let outcomes = ALL.map(|until| {
            let wait = Wait::of(WAITER, WAITERS + until as u32);
            made.process.wait(Caller::THREAD, until, wait)
        });
        keeper::run();
        ender.join().unwrap();
        keeper::run();
        for (until, outcome) in ALL.into_iter().zip(outcomes) {
            let count = messages(WAITER, WAITERS + until as u32);
            match outcome {
                Outcome::Waits => assert_eq!(count, 1),
                Outcome::Refused(Errno::EPERM) => {
                    assert!(until != Until::Exit);
                    assert_eq!(count, 0);
                }
                _ => panic!("it neither has ended nor can be signalled"),
            }
        }
        (made.fd, made.exit)
    });
}
