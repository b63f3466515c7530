//! A command that ends while processes wait for it, give up, and its server dies.

use std::sync::Arc;
use std::time::Duration;

use exile_os::exit::{self, Source};
use exile_os::model::reaper;
use exile_os::model::world::{self, is_open};
use exile_os::{Status, Teardown};
use loom::thread;

use super::explore;
use crate::command::{Command, Life, Outcome};
use crate::pipe::{Attempt, Pipe};
use crate::question::Question;
use crate::resource::{
    Caller, Handle, Pid, Wait, die, messages, monitors, ready, selected, stop_later, stop_now,
};

const SERVER: Pid = Pid(1);
const WAITER: Pid = Pid(2);
const COMMAND: i32 = 7;
const STATUS: Status = Status::Exited(3);
const SERVERS: u32 = 100;
const WAITERS: u32 = 200;
const READERS: u32 = 300;

/// Five take half a minute, all of them several minutes.
const BOUND: Option<usize> = Some(4);

fn at_once() -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![],
    }
}

/// A command with a pipe to read, and the number of its pidfd.
fn life() -> (Arc<Life>, Handle<Pipe>, i32) {
    let (child, fd) = world::child(COMMAND);
    world::tell(COMMAND);
    let (end, _theirs) = world::pipe();
    let pipe = Handle::reading(Caller::THREAD, end, WAITER, 1, Question::default());
    let life = Life::new(child, vec![pipe.clone()], at_once(), at_once());
    (life, pipe, fd)
}

fn end() {
    world::end(COMMAND, STATUS);
}

fn each_source(body: impl Fn() + Send + Sync + Clone + 'static) {
    for source in [Source::Wait, Source::Pidfd] {
        for later in [false, true] {
            exit::choose(Some(source));
            let body = body.clone();
            explore(BOUND, move || {
                if later {
                    stop_later();
                }
                body();
                die(SERVER);
                die(WAITER);
                stop_now();
                assert_eq!((selected(), monitors()), (0, 0));
            });
        }
    }
}

#[test]
fn whoever_waits_for_the_end_gets_one_message_whoever_learns_of_it_first() {
    each_source(|| {
        let (life, pipe, fd) = life();
        let wait = Wait::of(SERVER, SERVERS);
        let command = Handle::serve(Caller::THREAD, Arc::clone(&life), SERVER, wait)
            .ok()
            .unwrap();
        // The server gets the message of the VM and asks.
        let server = {
            let command = command.clone();
            thread::spawn(move || {
                end();
                ready(fd);
                assert_eq!(command.status(Caller::THREAD, SERVER), Some(STATUS));
            })
        };
        // The thread of the reaper looks, too.
        let other = thread::spawn(move || life.status(Caller::THREAD));

        let reader = || Some(Wait::of(WAITER, READERS));
        let read = pipe.attempt(WAITER, reader, false, |_| Ok(None::<()>)).ok();
        let wait = Wait::of(WAITER, WAITERS);
        let outcome = command.status_or_wait(Caller::THREAD, WAITER, wait);
        server.join().unwrap();
        other.join().unwrap();

        match outcome {
            Outcome::Waits => assert_eq!(messages(WAITER, WAITERS), 1),
            Outcome::Known(status) => {
                assert_eq!(status, Some(STATUS));
                assert_eq!(messages(WAITER, WAITERS), 0);
            }
        }
        let waits = matches!(read, Some(Attempt::Waits));
        assert_eq!(messages(WAITER, READERS), usize::from(waits));
        stop_now();
        assert!(!is_open(fd));
        drop(command);
    });
}

#[test]
fn a_wait_that_is_given_up_has_a_message_or_has_none_as_it_was_told() {
    each_source(|| {
        let (life, _, _) = life();
        assert!(life.enter(Wait::of(WAITER, WAITERS)));
        let others = [(); 2].map(|()| {
            let life = Arc::clone(&life);
            thread::spawn(move || {
                end();
                life.status(Caller::THREAD);
            })
        });
        let given_up = life.give_up(|wait| wait.has(WAITERS));
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(messages(WAITER, WAITERS), usize::from(!given_up));
    });
}

#[test]
fn a_command_whose_server_dies_is_ended_and_its_end_is_told() {
    each_source(|| {
        let (life, _, fd) = life();
        let death = thread::spawn(|| {
            die(SERVER);
            reaper::run();
        });
        let kernel = thread::spawn(end);
        let wait = Wait::of(SERVER, SERVERS);
        let command = Handle::serve(Caller::THREAD, Arc::clone(&life), SERVER, wait)
            .ok()
            .unwrap();
        let wait = Wait::of(WAITER, WAITERS);
        let outcome = command.status_or_wait(Caller::THREAD, WAITER, wait);
        death.join().unwrap();
        kernel.join().unwrap();
        reaper::run();
        if let Outcome::Waits = outcome {
            assert_eq!(messages(WAITER, WAITERS), 1);
        }
        assert_eq!(monitors(), 0);
        let status = life.status(Caller::THREAD);
        assert!([Some(STATUS), Some(reaper::KILLED)].contains(&status));
        stop_now();
        assert!(!is_open(fd));
        drop(command);
    });
}

#[test]
fn a_command_that_nobody_holds_is_ended() {
    each_source(|| {
        let (life, _, fd) = life();
        let kernel = thread::spawn(end);
        let wait = Wait::of(SERVER, SERVERS);
        let command: Handle<Command> = Handle::serve(Caller::THREAD, life, SERVER, wait)
            .ok()
            .unwrap();
        drop(command);
        die(SERVER);
        kernel.join().unwrap();
        reaper::run();
        stop_now();
        assert!(!is_open(fd));
    });
}
