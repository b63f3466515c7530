//! A spawn that was asked for, while it is answered, given up, and the application stops.

use exile_os::exit::Source;
use loom::thread;

use super::explore;
use crate::request::{Request, close_door, open_count, open_door};
use crate::resource::{Caller, Handle, Pid, Wait, die, messages, objects};
use crate::watch::monitor_count;

const ASKER: Pid = Pid(1);
const REFERENCE: u32 = 100;

fn ask() -> Option<Handle<Request>> {
    Handle::ask(Caller::THREAD, ASKER, Wait::of(ASKER, REFERENCE), false)
}

/// Answers, as a spawner does that has come to an end. `false`: nobody wants the answer.
fn answer(request: &Handle<Request>) -> bool {
    let wait = request.over();
    wait.map(|wait| wait.wake(Caller::THREAD)).is_some()
}

fn all_orders(body: impl Fn() + Send + Sync + 'static) {
    explore(Source::Pidfd, None, move || {
        open_door();
        body();
        die(ASKER);
        assert_eq!((open_count(), monitor_count(), objects()), (0, 0, 0));
    });
}

#[test]
fn a_request_has_one_answer_or_none_if_it_was_given_up() {
    all_orders(|| {
        let request = ask().unwrap();
        let spawner = {
            let request = request.clone();
            thread::spawn(move || answer(&request))
        };
        let stop = thread::spawn(|| close_door(Caller::THREAD));
        let given_up = request.give_up();
        let answered = spawner.join().unwrap();
        stop.join().unwrap();
        assert_eq!(messages(ASKER, REFERENCE), usize::from(!given_up));
        assert!(!(answered && given_up));
        // What is being made for nobody is killed.
        assert_eq!(request.attempt.is_cancelled(), !answered);
    });
}

#[test]
fn a_request_is_given_up_when_the_process_that_asked_dies() {
    all_orders(|| {
        let request = ask().unwrap();
        let spawner = {
            let request = request.clone();
            thread::spawn(move || answer(&request))
        };
        let stop = thread::spawn(|| close_door(Caller::THREAD));
        die(ASKER);
        let answered = spawner.join().unwrap();
        stop.join().unwrap();
        assert!(request.is_over());
        assert_eq!(request.attempt.is_cancelled(), !answered);
    });
}

#[test]
fn what_is_asked_while_the_door_is_closed_is_answered_or_refused() {
    all_orders(|| {
        let stop = thread::spawn(|| close_door(Caller::THREAD));
        let request = ask();
        stop.join().unwrap();
        assert_eq!(messages(ASKER, REFERENCE), usize::from(request.is_some()));
        assert!(request.is_none_or(|request| request.attempt.is_cancelled()));
        assert!(ask().is_none());
    });
}
