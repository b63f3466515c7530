//! The sequence of signals that ends a process, as data, and the progress of one process through
//! it.
//!
//! Nothing here knows of threads or of the clock: the time is a parameter, the process a trait.

use std::time::{Duration, Instant};

use crate::errno::Errno;
use crate::signal::Signal;

/// How a process is ended: first wait, then send each signal and give the process time to end
/// before the next one. After the last signal always comes SIGKILL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Teardown {
    /// How long to wait for the process to end by itself.
    pub grace: Duration,
    /// The signals, and how long to wait after each.
    pub steps: Vec<(Signal, Duration)>,
}

impl Teardown {
    /// The longest time until SIGKILL.
    pub fn duration(&self) -> Duration {
        let waits = self.steps.iter().map(|(_, wait)| *wait);
        waits.fold(self.grace, Duration::saturating_add)
    }
}

/// The outcome of one signal of a teardown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// `EPERM`: the process may not be signalled; `ESRCH`: it has ended.
    pub(crate) program: Result<(), Errno>,
    /// `ESRCH`: the group is empty, or can no longer be told from others.
    pub(crate) group: Result<(), Errno>,
}

/// A process as its teardown sees it.
pub(crate) trait Target {
    /// Whether the process has ended. Its group may live on.
    fn has_ended(&self) -> bool;
    /// Signals the process and its group.
    fn signal(&self, signal: Signal) -> Reach;
}

/// Longer than any system runs, and safe to add to an `Instant`.
const FOR_EVER: Duration = Duration::from_secs(1 << 40);

fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FOR_EVER)
}

/// The first and the longest interval between checks whether the group of an ended process is
/// empty: nothing announces it. Right after its end, the kernel may still count the process itself.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// A teardown under way.
#[derive(Debug)]
pub(crate) struct Progress {
    teardown: Teardown,
    /// How many signals of the teardown were sent.
    sent: usize,
    /// When the last signal was sent, or when the teardown began.
    since: Instant,
    look: Duration,
    killed: bool,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing is left to do.
    Done,
    /// The process may not be signalled, so nothing can be done.
    Refused(Errno),
    /// When the process ends, or at this time.
    At(Instant),
    /// When the process ends.
    AtEnd,
}

impl Progress {
    pub(crate) fn new(teardown: Teardown, now: Instant) -> Progress {
        Progress {
            teardown,
            sent: 0,
            since: now,
            look: FIRST_LOOK,
            killed: false,
        }
    }

    /// Another caller asks for the end, from now on by `other`. Each wait becomes the shorter of
    /// the two, and no signal is repeated.
    pub(crate) fn hasten(&mut self, other: &Teardown, now: Instant) {
        if self.sent == 0 {
            let grace = now.saturating_duration_since(self.since) + other.grace.min(FOR_EVER);
            self.teardown.grace = self.teardown.grace.min(grace);
        }
        let waits = other.steps.iter().map(|(_, wait)| *wait);
        for ((_, mine), other) in self.teardown.steps.iter_mut().zip(waits) {
            *mine = (*mine).min(other);
        }
        self.teardown
            .steps
            .truncate(other.steps.len().max(self.sent));
        // If `other` has no more signals than were sent already, SIGKILL is next.
        if self.sent >= other.steps.len() {
            let wait = now.saturating_duration_since(self.since) + other.duration().min(FOR_EVER);
            if let Some((_, last)) = self.teardown.steps.last_mut() {
                *last = (*last).min(wait);
            }
        }
    }

    /// When the next signal is due.
    fn due(&self) -> Instant {
        let before = self.sent.checked_sub(1);
        let wait = match before.and_then(|index| self.teardown.steps.get(index)) {
            Some((_, wait)) => *wait,
            None => self.teardown.grace,
        };
        after(self.since, wait)
    }

    /// Does what is due.
    ///
    /// If a process ends before the first signal, for instance because its pipes are closed, the
    /// rest of the grace is skipped: what is left of its group gets the sequence from then on. An
    /// empty group needs no more signals.
    pub(crate) fn advance(&mut self, target: &impl Target, now: Instant) -> Next {
        loop {
            let ended = target.has_ended();
            let begun = self.sent > 0 || self.killed;
            if ended && (self.killed || begun && is_empty(target.signal(Signal::NONE))) {
                return Next::Done;
            }
            if self.killed {
                return Next::AtEnd;
            }
            let due = self.due();
            if now < due && ended && begun {
                let next = due.min(now + self.look);
                self.look = LONGEST_LOOK.min(2 * self.look);
                return Next::At(next);
            }
            if now < due && !ended {
                return Next::At(due);
            }
            let step = self.teardown.steps.get(self.sent);
            let signal = step.map_or(Signal::KILL, |(signal, _)| *signal);
            self.killed = step.is_none();
            let reach = target.signal(signal);
            if ended && is_empty(reach) {
                return Next::Done;
            }
            if let Some(errno) = refusal(reach, self.killed) {
                return Next::Refused(errno);
            }
            if !self.killed {
                // A stopped process receives the signal only when it continues.
                target.signal(Signal::CONT);
                self.sent += 1;
                self.since = now;
            }
        }
    }
}

/// Whether the group is empty, or none of its members could be signalled.
fn is_empty(reach: Reach) -> bool {
    reach.group.is_err()
}

/// Why the process cannot be ended, if it cannot. While its group accepts signals, it may still end
/// because of what they do to the others.
fn refusal(reach: Reach, last: bool) -> Option<Errno> {
    match reach.program {
        Err(errno @ Errno::EPERM) if reach.group.is_err() || last => Some(errno),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    const SECOND: Duration = Duration::from_secs(1);
    const MOMENT: Duration = Duration::from_millis(10);

    /// A process whose behaviour the test sets.
    #[derive(Default)]
    struct Pretend {
        ended: Cell<bool>,
        group_empty: Cell<bool>,
        refuses: Cell<bool>,
        got: RefCell<Vec<i32>>,
    }

    impl Target for Pretend {
        fn has_ended(&self) -> bool {
            self.ended.get()
        }
        fn signal(&self, signal: Signal) -> Reach {
            if signal != Signal::NONE && signal != Signal::CONT {
                self.got.borrow_mut().push(signal.number());
            }
            let program = match (self.ended.get(), self.refuses.get()) {
                (true, _) => Err(Errno::ESRCH),
                (_, true) => Err(Errno::EPERM),
                _ => Ok(()),
            };
            let group = match (self.group_empty.get(), self.refuses.get()) {
                (true, _) => Err(Errno::ESRCH),
                (_, true) => Err(Errno::EPERM),
                _ => Ok(()),
            };
            Reach { program, group }
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
    fn the_group_of_a_command_that_ends_in_its_grace_gets_the_sequence_from_then_on() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        assert_eq!(progress.advance(&command, start), Next::At(start + SECOND));
        command.ended.set(true);
        let now = start + MOMENT;
        assert!(matches!(progress.advance(&command, now), Next::At(_)));
        assert_eq!(*command.got.borrow(), [libc::SIGTERM]);
        command.group_empty.set(true);
        assert_eq!(progress.advance(&command, now), Next::Done);
    }

    #[test]
    fn a_command_that_ends_in_its_grace_and_left_nobody_is_done_with() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        command.ended.set(true);
        command.group_empty.set(true);
        assert_eq!(progress.advance(&command, start), Next::Done);
    }

    #[test]
    fn a_command_that_may_not_be_signalled_ends_the_teardown_at_once() {
        let (start, command) = (Instant::now(), Pretend::default());
        command.refuses.set(true);
        let mut progress = Progress::new(two_terms(), start);
        assert_eq!(progress.advance(&command, start), Next::At(start + SECOND));
        let refused = Next::Refused(Errno::EPERM);
        assert_eq!(progress.advance(&command, start + SECOND), refused);
    }

    #[test]
    fn a_later_request_shortens_the_grace_and_the_waits() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        progress.advance(&command, start);
        let hasty = Teardown {
            grace: Duration::ZERO,
            steps: vec![(Signal::TERM, MOMENT), (Signal::TERM, MOMENT)],
        };
        let now = start + MOMENT;
        progress.hasten(&hasty, now);
        assert_eq!(progress.advance(&command, now), Next::At(now + MOMENT));
        let now = now + MOMENT;
        assert_eq!(progress.advance(&command, now), Next::At(now + MOMENT));
        assert_eq!(*command.got.borrow(), [libc::SIGTERM, libc::SIGTERM]);
        assert_eq!(progress.advance(&command, now + MOMENT), Next::AtEnd);
    }

    #[test]
    fn a_later_request_repeats_no_signal() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        let now = start + SECOND;
        progress.advance(&command, now);
        let same = Teardown {
            grace: Duration::ZERO,
            steps: two_terms().steps,
        };
        progress.hasten(&same, now + MOMENT);
        let next = progress.advance(&command, now + MOMENT);
        assert_eq!(next, Next::At(now + SECOND));
        assert_eq!(*command.got.borrow(), [libc::SIGTERM]);
    }

    #[test]
    fn a_later_request_without_signals_shortens_the_wait_after_the_last_one() {
        let (start, command) = (Instant::now(), Pretend::default());
        let mut progress = Progress::new(two_terms(), start);
        let now = start + SECOND;
        progress.advance(&command, now);
        let now = now + MOMENT;
        let grace = |grace| Teardown {
            grace,
            steps: vec![],
        };
        progress.hasten(&grace(MOMENT), now);
        assert_eq!(progress.advance(&command, now), Next::At(now + MOMENT));
        progress.hasten(&grace(SECOND), now);
        assert_eq!(progress.advance(&command, now), Next::At(now + MOMENT));
        progress.hasten(&grace(Duration::ZERO), now);
        assert_eq!(progress.advance(&command, now), Next::AtEnd);
        assert_eq!(*command.got.borrow(), [libc::SIGTERM, libc::SIGKILL]);
    }

    #[test]
    fn a_later_request_never_slows_a_teardown() {
        let (start, command) = (Instant::now(), Pretend::default());
        let hasty = Teardown {
            grace: Duration::ZERO,
            steps: vec![(Signal::TERM, MOMENT), (Signal::TERM, MOMENT)],
        };
        let mut progress = Progress::new(hasty, start);
        progress.advance(&command, start);
        progress.hasten(&two_terms(), start);
        assert_eq!(progress.advance(&command, start), Next::At(start + MOMENT));
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
