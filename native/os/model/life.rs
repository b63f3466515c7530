//! The life of a process and its one teardown, with the keeper at work. The process ends by itself,
//! while other threads want its end or ask how it ended.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::world::{self, KILLED, is_open};
use super::{each_source, each_with_zombies};
use crate::life::keeper;
use crate::life::living::Kin;
use crate::life::registry::under_way;
use crate::sync::Mutex;
use crate::{Errno, Life, Signal, Status, Teardown};

const PID: libc::pid_t = 7;
const STATUS: Status = Status::Exited(3);
/// Trying all orders would take many minutes.
const BOUND: Option<usize> = Some(3);

/// What the life reported, in order.
struct Told(Mutex<Vec<Event>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Claimed,
    Ended,
    Over(Option<Errno>),
}

impl Told {
    fn nothing() -> Told {
        Told(Mutex::new(Vec::new()))
    }

    fn note(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn ended(&self) -> bool {
        self.0.lock().unwrap().contains(&Event::Ended)
    }

    /// All events but `Ended`, which is reported by every thread that sees the end.
    fn of_teardowns(&self) -> Vec<Event> {
        let mut events = self.0.lock().unwrap().clone();
        events.retain(|event| *event != Event::Ended);
        events
    }
}

impl Kin for Told {
    type Caller = ();
    const KEEPER: () = ();

    fn claimed(&self) {
        self.note(Event::Claimed);
    }

    fn ended(&self, _caller: ()) {
        self.note(Event::Ended);
    }

    fn over(&self, refused: Option<Errno>) {
        self.note(Event::Over(refused));
    }
}

fn kill() -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![],
    }
}

fn term() -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![(Signal::TERM, Duration::from_secs(1))],
    }
}

/// A life, and the number of its exit fd.
fn life() -> (Arc<Life<Told>>, i32) {
    let (child, fd) = world::child(PID);
    world::tell(PID);
    (Life::begin(child, term(), Told::nothing()).unwrap(), fd)
}

/// Lets the keeper finish, and checks what holds then for a process that has ended.
fn finish(life: &Life<Told>, fd: i32) {
    keeper::run();
    assert!(life.status(()).is_some());
    assert!(life.kin().ended());
    assert_eq!((keeper::living_count(), under_way()), (0, 0));
    assert!(!is_open(fd));
}

#[test]
fn a_teardown_is_over_once_and_never_sleeps_through_the_end() {
    each_source(BOUND, |_| {
        let (child, fd) = world::child(PID);
        let life = Life::begin(child, term(), Told::nothing()).unwrap();
        let kernel = thread::spawn(|| {
            world::end(PID, STATUS);
            world::tell(PID);
        });
        let other = {
            let life = Arc::clone(&life);
            thread::spawn(move || life.status(()))
        };
        let claimed = life.end();
        keeper::run();
        other.join().unwrap();
        kernel.join().unwrap();
        finish(&life, fd);
        let expected = match claimed {
            true => vec![Event::Claimed, Event::Over(None)],
            false => vec![],
        };
        assert_eq!(life.kin().of_teardowns(), expected);
    });
}

#[test]
fn a_process_that_hangs_when_it_is_killed_is_forgotten_whoever_sees_its_end() {
    each_source(BOUND, |_| {
        let (life, fd) = life();
        world::hang(PID);
        let others = [false, true].map(|wakes| {
            let life = Arc::clone(&life);
            thread::spawn(move || {
                if wakes {
                    world::wake_up(PID);
                }
                life.status(());
            })
        });
        assert!(life.end_by(&kill()));
        keeper::run();
        for other in others {
            other.join().unwrap();
        }
        world::wake_up(PID);
        finish(&life, fd);
        assert_eq!(life.status(()), Some(KILLED));
        let told = life.kin().of_teardowns();
        assert_eq!(told, [Event::Claimed, Event::Over(None)]);
    });
}

#[test]
fn two_who_want_the_end_at_once_share_one_teardown() {
    each_source(None, |_| {
        let (life, fd) = life();
        let others = [term(), kill()].map(|teardown| {
            let life = Arc::clone(&life);
            thread::spawn(move || life.end_by(&teardown))
        });
        keeper::run();
        let claimed = others.map(|other| other.join().unwrap());
        assert!(claimed.contains(&true));
        finish(&life, fd);
        let told = life.kin().of_teardowns();
        assert_eq!(told, [Event::Claimed, Event::Over(None)]);
        let received = world::received(PID);
        let count = |wanted| received.iter().filter(|signal| **signal == wanted).count();
        assert!(count(libc::SIGTERM) <= 1);
        assert_eq!(count(libc::SIGKILL), 1);
    });
}

#[test]
fn a_process_that_may_not_be_signalled_can_be_claimed_again() {
    each_source(None, |_| {
        let (life, fd) = life();
        world::forbid(PID, true);
        assert!(life.end_by(&kill()));
        let other = {
            let life = Arc::clone(&life);
            thread::spawn(move || {
                world::forbid(PID, false);
                assert!(life.end_by(&kill()) || life.status(()) == Some(KILLED));
            })
        };
        keeper::run();
        other.join().unwrap();
        finish(&life, fd);
        let once = vec![Event::Claimed, Event::Over(None)];
        let refused = vec![Event::Claimed, Event::Over(Some(Errno::EPERM))];
        let told = life.kin().of_teardowns();
        assert!(told == once || told == [refused, once].concat(), "{told:?}");
    });
}

#[test]
fn a_process_that_ends_after_a_refusal_is_forgotten_whoever_sees_its_end() {
    each_source(None, |_| {
        let (life, fd) = life();
        world::forbid(PID, true);
        assert!(life.end_by(&kill()));
        let other = {
            let life = Arc::clone(&life);
            thread::spawn(move || {
                world::end(PID, STATUS);
                life.status(());
            })
        };
        keeper::run();
        other.join().unwrap();
        finish(&life, fd);
    });
}

#[test]
fn a_group_goes_with_its_leader_if_that_was_claimed_and_else_is_left_alone() {
    each_source(None, |_| {
        let (life, fd) = life();
        world::have_others(PID);
        let kernel = thread::spawn(|| world::end(PID, STATUS));
        let other = {
            let life = Arc::clone(&life);
            thread::spawn(move || life.end_by(&kill()))
        };
        keeper::run();
        let claimed = other.join().unwrap();
        kernel.join().unwrap();
        finish(&life, fd);
        assert_eq!(world::has_others(PID), !claimed);
        if !claimed {
            assert_eq!(world::group_signals(PID), []);
        }
    });
}

#[test]
fn an_old_kernel_ends_the_group_of_a_leader_that_was_claimed() {
    each_with_zombies(|| {
        world::grow_old();
        let (life, fd) = life();
        world::have_others(PID);
        let kernel = thread::spawn(|| world::end(PID, STATUS));
        let claimed = life.end();
        keeper::run();
        kernel.join().unwrap();
        finish(&life, fd);
        assert_eq!(world::has_others(PID), !claimed);
    });
}

#[test]
fn a_leader_that_leaves_its_group_ends_with_it() {
    each_source(None, |_| {
        let (life, fd) = life();
        world::have_others(PID);
        let leaver = thread::spawn(|| world::leave_group(PID));
        assert!(life.end());
        keeper::run();
        leaver.join().unwrap();
        finish(&life, fd);
        assert_eq!(life.status(()), Some(KILLED));
        assert!(!world::has_others(PID));
        assert!(world::received(PID).contains(&libc::SIGTERM));
    });
}

#[test]
fn a_program_whose_end_is_known_before_its_life_begins_has_one_that_ends() {
    each_source(None, |_| {
        let (child, fd) = world::child(PID);
        world::tell(PID);
        world::end(PID, STATUS);
        let other = Arc::clone(&child);
        let other = thread::spawn(move || other.try_status());
        let life = Life::begin(child, term(), Told::nothing()).unwrap();
        keeper::run();
        other.join().unwrap();
        assert!(!life.end());
        finish(&life, fd);
        assert_eq!(life.kin().of_teardowns(), []);
    });
}
