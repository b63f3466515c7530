//! A child that several threads ask, signal and watch while it ends.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use loom::thread;

use super::world::{self, is_open};
use super::{each_source, each_with_zombies};
use crate::{Child, Errno, Signal, Status};

const PID: libc::pid_t = 7;
const STATUS: Status = Status::Exited(3);

/// A child, the number of its exit fd, and a thread that plays the kernel: it lets the child end at
/// any moment.
fn ending() -> (Arc<Child>, i32, thread::JoinHandle<()>) {
    let (child, fd) = world::child(PID);
    let kernel = thread::spawn(|| {
        world::end(PID, STATUS);
        world::tell(PID);
    });
    (child, fd, kernel)
}

#[test]
fn a_status_is_the_same_for_all_who_ask() {
    each_source(None, |_| {
        let (child, fd, kernel) = ending();
        let other = Arc::clone(&child);
        let other = thread::spawn(move || other.try_status());
        let seen = child.try_status();
        assert!(seen.is_none_or(|status| status == STATUS));
        let others = other.join().unwrap();
        assert!(others.is_none_or(|status| status == STATUS));
        kernel.join().unwrap();
        assert_eq!(child.try_status(), Some(STATUS));
        assert!(!is_open(fd));
    });
}

#[test]
fn a_descriptor_is_closed_when_the_status_is_known_and_nobody_watches() {
    each_source(None, |_| {
        let (child, fd, kernel) = ending();
        let other = Arc::clone(&child);
        let other = thread::spawn(move || other.try_status());
        // The event loop keeps the number, but no `Arc`.
        let watched = child.watch().map(|end| end.as_raw_fd());
        if let Some(watched) = watched {
            child.try_status();
            assert!(is_open(watched));
            child.unwatched();
        }
        other.join().unwrap();
        kernel.join().unwrap();
        assert_eq!(child.try_status(), Some(STATUS));
        assert!(!is_open(fd));
    });
}

#[test]
fn no_signal_is_sent_once_the_status_is_known() {
    each_source(None, |_| {
        let (child, _, kernel) = ending();
        // This keeps the descriptor open, so that a signal could be sent whatever is known.
        child.watch();
        let other = Arc::clone(&child);
        let other = thread::spawn(move || {
            let known = other.try_status().is_some();
            let sent = other.signal(Signal::TERM);
            assert!(!known || sent == Err(Errno::ESRCH));
            sent.is_ok()
        });
        let sent = child.signal(Signal::TERM).is_ok();
        let other_sent = other.join().unwrap();
        kernel.join().unwrap();
        let got = world::signals(PID).len();
        assert_eq!(got, usize::from(sent) + usize::from(other_sent));
    });
}

#[test]
fn an_old_kernel_is_never_given_the_number_of_a_group_that_is_gone() {
    // Pids are only used where zombies keep them.
    each_with_zombies(|| {
        world::grow_old();
        let (child, _, kernel) = ending();
        let other = Arc::clone(&child);
        let other = thread::spawn(move || other.try_status());
        // The model's kernel fails if the pid is free.
        let claimed = child.claim();
        let sent = claimed
            .as_ref()
            .map(|end| child.signal_all(end, Signal::TERM).group);
        other.join().unwrap();
        kernel.join().unwrap();
        assert_eq!(child.try_status(), Some(STATUS));
        // Once the command is claimed, what it left behind ends with it.
        let expected = match sent {
            Some(Ok(())) => vec![libc::SIGTERM, libc::SIGKILL],
            Some(Err(_)) => vec![libc::SIGKILL],
            None => vec![],
        };
        assert_eq!(world::group_signals(PID), expected);
    });
}

#[test]
fn a_number_is_not_used_after_somebody_else_reaped_the_child() {
    each_with_zombies(|| {
        world::grow_old();
        for claimed in [true, false] {
            let (child, _) = world::child(PID);
            let end = child.end().unwrap();
            if claimed {
                child.claim().unwrap();
            }
            world::end(PID, STATUS);
            world::bury(PID);
            // The model's kernel fails if the pid is free.
            let sent = child.signal_all(&end, Signal::TERM);
            assert_eq!(sent.group, Err(Errno::ESRCH));
            assert_eq!(sent.program, Err(Errno::ESRCH));
            assert_eq!(child.signal(Signal::TERM), Err(Errno::ESRCH));
            assert!(child.claim().is_none());
            assert!(child.is_gone());
            assert_eq!(child.try_status(), None);
        }
    });
}

#[test]
fn a_program_that_leaves_its_group_is_signalled_and_once_if_it_does_not_leave_meanwhile() {
    each_source(None, |_| {
        let (child, _) = world::child(PID);
        let end = child.claim().unwrap();
        let leaver = thread::spawn(|| world::leave_group(PID));
        let before = world::has_left(PID);
        let reach = child.signal_all(&end, Signal::TERM);
        let after = world::has_left(PID);
        assert_eq!(reach.program, Ok(()));
        let (all, sent) = (world::received(PID).len(), world::signals(PID).len());
        match (before, after) {
            (true, _) => assert_eq!((all, sent), (1, 1)),
            (_, false) => assert_eq!((all, sent), (1, 0)),
            // It gets the signal once or twice, but never misses it.
            (false, true) => assert!(all == 1 || all == 2),
        }
        leaver.join().unwrap();
    });
}
