//! The sequence of signals that ends a command, as data, and one command's way through it.
//!
//! Nothing here knows of threads or of the clock: time is a parameter, the command a trait.

use std::time::{Duration, Instant};

use crate::signal::Signal;

/// How a command is ended: wait, then signal by signal, each with the time the command has to
/// end before the next. After the last comes SIGKILL, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Teardown {
    /// How long to wait for the command to end by itself.
    pub grace: Duration,
    /// Signals, and how long to wait after each.
    pub steps: Vec<(Signal, Duration)>,
}

impl Teardown {
    /// How long it takes until SIGKILL, at most.
    pub fn duration(&self) -> Duration {
        let waits = self.steps.iter().map(|(_, wait)| *wait);
        waits.fold(self.grace, Duration::saturating_add)
    }
}

/// What a teardown needs to know of its command, and does to it.
pub(crate) trait Target {
    /// Whether the command has ended. Its group may live on.
    fn has_ended(&self) -> bool;
    /// Signals the group; `false` when nobody is left in it.
    fn signal_group(&self, signal: Signal) -> bool;
}

/// Longer than any system runs; an `Instant` can be this much later.
const FOR_EVER: Duration = Duration::from_secs(1 << 40);

fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FOR_EVER)
}

/// How soon to look whether anybody is left in the group of a command that has ended, at first
/// and at most: nothing announces it. Right after its end even the command itself may still be
/// counted by the kernel.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// A teardown under way.
#[derive(Debug)]
pub(crate) struct Progress {
    steps: std::vec::IntoIter<(Signal, Duration)>,
    due: Instant,
    look: Duration,
    signalled: bool,
    killed: bool,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing is left to do.
    Done,
    /// When the command ends, or at this time.
    At(Instant),
    /// When the command ends.
    AtEnd,
}

impl Progress {
    pub(crate) fn new(teardown: Teardown, now: Instant) -> Progress {
        Progress {
            due: after(now, teardown.grace),
            steps: teardown.steps.into_iter(),
            look: FIRST_LOOK,
            signalled: false,
            killed: false,
        }
    }

    /// Does what is due.
    ///
    /// A command that ended before the first signal ended by itself: its group is left alone.
    /// One that ended because of a signal may have left members that need longer; they get the
    /// rest of the sequence.
    pub(crate) fn advance(&mut self, target: &impl Target, now: Instant) -> Next {
        loop {
            let ended = target.has_ended();
            if ended && (!self.signalled || self.killed || !target.signal_group(Signal::NONE)) {
                return Next::Done;
            }
            if self.killed {
                return Next::AtEnd;
            }
            if now < self.due && ended {
                let next = self.due.min(now + self.look);
                self.look = LONGEST_LOOK.min(2 * self.look);
                return Next::At(next);
            }
            if now < self.due {
                return Next::At(self.due);
            }
            self.signalled = true;
            match self.steps.next() {
                Some((signal, wait)) => {
                    target.signal_group(signal);
                    // A stopped program gets its signals when it goes on.
                    target.signal_group(Signal::CONT);
                    self.due = after(now, wait);
                }
                None => {
                    target.signal_group(Signal::KILL);
                    self.killed = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    const SECOND: Duration = Duration::from_secs(1);
    const MOMENT: Duration = Duration::from_millis(10);

    /// A command made of what the test says.
    #[derive(Default)]
    struct Pretend {
        ended: Cell<bool>,
        group_empty: Cell<bool>,
        got: RefCell<Vec<i32>>,
    }

    impl Target for Pretend {
        fn has_ended(&self) -> bool {
            self.ended.get()
        }
        fn signal_group(&self, signal: Signal) -> bool {
            if signal != Signal::NONE && signal != Signal::CONT {
                self.got.borrow_mut().push(signal.number());
            }
            !self.group_empty.get()
        }
    }

    fn two_terms() -> Teardown {
        Teardown {
            grace: SECOND,
            steps: vec![(Signal::TERM, SECOND), (Signal::TERM, SECOND)],
        }
    }

    #[test]
    fn a_stubborn_command_gets_every_signal_at_its_time_and_then_sigkill() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        let at = |n: u32| start + n * SECOND;
        assert_eq!(progress.advance(&command, at(0)), Next::At(at(1)));
        assert_eq!(*command.got.borrow(), [0; 0]);
        assert_eq!(progress.advance(&command, at(1)), Next::At(at(2)));
        assert_eq!(*command.got.borrow(), [libc::SIGTERM]);
        assert_eq!(progress.advance(&command, at(2)), Next::At(at(3)));
        assert_eq!(progress.advance(&command, at(3)), Next::AtEnd);
        assert_eq!(
            *command.got.borrow(),
            [libc::SIGTERM, libc::SIGTERM, libc::SIGKILL]
        );
        command.ended.set(true);
        assert_eq!(progress.advance(&command, at(3)), Next::Done);
    }

    #[test]
    fn a_command_that_ends_by_itself_leaves_its_group_alone() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        command.ended.set(true);
        assert_eq!(progress.advance(&command, start + 5 * SECOND), Next::Done);
        assert_eq!(*command.got.borrow(), [0; 0]);
    }

    #[test]
    fn what_is_left_of_the_group_gets_the_rest_of_the_sequence() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        progress.advance(&command, start + SECOND);
        command.ended.set(true);
        let mut now = start + SECOND;
        let mut looks = 0;
        while now < start + 2 * SECOND {
            match progress.advance(&command, now) {
                Next::At(later) if later > now => now = later,
                next => panic!("{next:?} after {looks} looks"),
            }
            looks += 1;
        }
        assert_eq!(now, start + 2 * SECOND);
        assert!(looks < 20, "{looks} looks");
        assert_eq!(*command.got.borrow(), [libc::SIGTERM]);
        progress.advance(&command, now);
        assert_eq!(progress.advance(&command, start + 3 * SECOND), Next::Done);
        assert_eq!(
            *command.got.borrow(),
            [libc::SIGTERM, libc::SIGTERM, libc::SIGKILL]
        );
    }

    #[test]
    fn a_group_that_empties_after_its_leader_is_seen_to_soon() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        progress.advance(&command, start + SECOND);
        command.ended.set(true);
        let Next::At(look) = progress.advance(&command, start + SECOND) else {
            panic!("the group is not empty");
        };
        assert!(look < start + SECOND + MOMENT);
        command.group_empty.set(true);
        assert_eq!(progress.advance(&command, look), Next::Done);
        assert_eq!(*command.got.borrow(), [libc::SIGTERM]);
    }

    #[test]
    fn an_empty_group_needs_no_more_signals() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        progress.advance(&command, start + SECOND);
        command.ended.set(true);
        command.group_empty.set(true);
        assert_eq!(progress.advance(&command, start + SECOND), Next::Done);
        assert_eq!(*command.got.borrow(), [libc::SIGTERM]);
    }

    #[test]
    fn without_steps_and_grace_sigkill_comes_at_once() {
        let (start, command) = (Instant::now(), Pretend::default());
        let at_once = Teardown {
            grace: Duration::ZERO,
            steps: vec![],
        };
        assert_eq!(
            Progress::new(at_once, start).advance(&command, start),
            Next::AtEnd
        );
        assert_eq!(*command.got.borrow(), [libc::SIGKILL]);
    }

    #[test]
    fn a_wait_without_end_has_none() {
        let (start, command) = (Instant::now(), Pretend::default());
        let patient = Teardown {
            grace: Duration::MAX,
            steps: vec![],
        };
        let mut progress = Progress::new(patient, start);
        let late = start + 1_000_000 * SECOND;
        assert!(matches!(progress.advance(&command, late), Next::At(at) if at > late));
        assert_eq!(*command.got.borrow(), [0; 0]);
    }

    #[test]
    fn steps_without_a_wait_follow_each_other_at_once() {
        let (start, command) = (Instant::now(), Pretend::default());
        let teardown = Teardown {
            grace: Duration::ZERO,
            steps: vec![(Signal::TERM, Duration::ZERO), (Signal::TERM, SECOND)],
        };
        let mut progress = Progress::new(teardown, start);
        assert_eq!(progress.advance(&command, start), Next::At(start + SECOND));
        assert_eq!(*command.got.borrow(), [libc::SIGTERM, libc::SIGTERM]);
    }
}
