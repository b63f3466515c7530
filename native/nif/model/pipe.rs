//! A pipe whose owner reads it, while the process ends, the pipe is handed on, the owner dies and
//! the VM tells that it is ready.

use std::os::fd::{AsRawFd, RawFd};

use exile_os::exit::Source;
use exile_os::model::world::{self, is_open};
use exile_os::shared;
use exile_os::sync::Mutex;
use loom::thread;

use super::explore;
use crate::bonds::Ends;
use crate::pipe::{Attempt, Pipe};
use crate::pipe_end::Fd;
use crate::question::Question;
use crate::resource::{
    Caller, Handle, Pid, Wait, die, messages, ready, selected, stop_later, stop_now,
};
use crate::watch::monitor_count;

const OWNER: Pid = Pid(1);
const OTHER: Pid = Pid(2);
const REFERENCE: u32 = 100;

shared! {
    /// What the process has written and nobody has read.
    static WRITTEN: Mutex<usize> = Mutex::new(0);
}

/// A pipe of `OWNER`, and its descriptor's number.
fn pipe() -> (Handle<Pipe>, RawFd) {
    of_processes(1)
}

/// The same with so many processes at the other end.
fn of_processes(count: usize) -> (Handle<Pipe>, RawFd) {
    let (end, _theirs) = world::pipe();
    let fd = end.as_raw_fd();
    let ends = Ends {
        lives: vec![],
        all: false,
    };
    let pipe = Handle::open(
        Fd::Read(end),
        OWNER,
        count,
        Question::default(),
        Box::new(ends),
    );
    pipe.set_owner(Caller::THREAD, OWNER);
    (pipe, fd)
}

/// What a read by `pid` comes to.
fn read(pipe: &Handle<Pipe>, pid: Pid, drain: bool) -> Option<Attempt<usize>> {
    let wait = || Wait::of(pid, REFERENCE);
    let io = |_: &mut _| {
        let count = std::mem::take(&mut *WRITTEN.lock().unwrap());
        Ok((count > 0).then_some(count))
    };
    pipe.try_or_wait(pid, wait, drain, io).ok()
}

/// Runs `body` with stop callbacks that come at once, and with such that come when all else is
/// over. In the end nothing may be left.
fn each_stop(body: impl Fn(Handle<Pipe>, RawFd) + Send + Sync + Clone + 'static) {
    for later in [false, true] {
        let body = body.clone();
        explore(Source::Pidfd, None, move || {
            if later {
                stop_later();
            }
            let (handle, fd) = pipe();
            body(handle.clone(), fd);
            die(OWNER);
            die(OTHER);
            stop_now();
            assert!(!is_open(fd));
            assert_eq!((selected(), monitor_count()), (0, 0));
        });
    }
}

#[test]
fn a_wait_ends_with_one_message_when_the_process_ends_and_what_it_wrote_is_read() {
    each_stop(|pipe, fd| {
        let process = {
            let pipe = pipe.clone();
            thread::spawn(move || {
                *WRITTEN.lock().unwrap() += 1;
                ready(fd);
                pipe.process_ended(Caller::THREAD);
            })
        };
        let first = read(&pipe, OWNER, false).unwrap();
        process.join().unwrap();
        match first {
            Attempt::Waits => {
                assert_eq!(messages(OWNER, REFERENCE), 1);
                let next = read(&pipe, OWNER, false);
                assert!(matches!(next, Some(Attempt::Moved(1))));
            }
            Attempt::Moved(1) => assert_eq!(messages(OWNER, REFERENCE), 0),
            _ => panic!("the process had written before it ended"),
        }
        assert!(matches!(read(&pipe, OWNER, false), Some(Attempt::Ended)));
    });
}

#[test]
fn a_wait_on_a_pipe_that_processes_share_ends_with_the_last_of_them() {
    each_stop(|_, _| {
        let (shared, _) = of_processes(2);
        let processes = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || shared.process_ended(Caller::THREAD))
        });
        let first = read(&shared, OWNER, false);
        for process in processes {
            process.join().unwrap();
        }
        let waits = matches!(first, Some(Attempt::Waits));
        assert!(waits || matches!(first, Some(Attempt::Ended)));
        assert_eq!(messages(OWNER, REFERENCE), usize::from(waits));
        assert!(matches!(read(&shared, OWNER, false), Some(Attempt::Ended)));
    });
}

#[test]
fn a_wait_of_an_old_owner_ends_with_one_message() {
    each_stop(|pipe, fd| {
        let event = thread::spawn(move || ready(fd));
        let giver = {
            let pipe = pipe.clone();
            thread::spawn(move || assert!(pipe.set_owner(Caller::THREAD, OTHER)))
        };
        let first = read(&pipe, OWNER, false);
        giver.join().unwrap();
        event.join().unwrap();
        let expected = usize::from(matches!(first, Some(Attempt::Waits)));
        assert_eq!(messages(OWNER, REFERENCE), expected);
        assert!(read(&pipe, OWNER, false).is_none());
        assert_eq!(monitor_count(), 1);
    });
}

#[test]
fn a_wait_that_is_given_up_has_a_message_or_has_none_as_it_was_told() {
    each_stop(|pipe, fd| {
        let Some(Attempt::Waits) = read(&pipe, OWNER, false) else {
            panic!("there is nothing to read");
        };
        let event = thread::spawn(move || ready(fd));
        let process = {
            let pipe = pipe.clone();
            thread::spawn(move || pipe.process_ended(Caller::THREAD))
        };
        let given_up = pipe.give_up(|wait| wait.has(REFERENCE));
        let before = messages(OWNER, REFERENCE);
        assert_eq!(before, usize::from(!given_up));
        event.join().unwrap();
        process.join().unwrap();
        assert_eq!(messages(OWNER, REFERENCE), before);
    });
}

#[test]
fn a_pipe_is_closed_once_whoever_closes_it() {
    each_stop(|pipe, fd| {
        let death = thread::spawn(|| die(OWNER));
        let event = thread::spawn(move || ready(fd));
        let first = read(&pipe, OWNER, false);
        let closed = pipe.close(Caller::THREAD, OWNER);
        assert!(first.is_some() || !closed);
        assert!(!pipe.close(Caller::THREAD, OWNER));
        event.join().unwrap();
        death.join().unwrap();
    });
}

#[test]
fn a_pipe_that_was_handed_on_survives_its_old_owner_and_not_its_new_one() {
    each_stop(|pipe, _| {
        let death = thread::spawn(|| die(OWNER));
        let given = pipe.set_owner(Caller::THREAD, OTHER);
        death.join().unwrap();
        assert_eq!(read(&pipe, OTHER, false).is_some(), given);
        assert_eq!(monitor_count(), usize::from(given));
    });
    each_stop(|pipe, _| {
        let death = thread::spawn(|| die(OTHER));
        read(&pipe, OWNER, false);
        pipe.set_owner(Caller::THREAD, OTHER);
        death.join().unwrap();
        assert!(read(&pipe, OTHER, false).is_none());
        assert_eq!(monitor_count(), 0);
    });
}
