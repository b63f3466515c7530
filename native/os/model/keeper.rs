//! The keeper of the models. Its thread works when the model says so. It handles lives with the
//! real code. Time passes only when nothing else is left to do.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::errno::Errno;
use crate::exit::{self, ExitFd, Source};
use crate::kernel::is_readable;
use crate::life::registry::{self, Key};
use crate::shared;
use crate::sync::{Mutex, MutexGuard};

/// A function to run on the keeper's thread.
pub type Errand = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Work {
    /// Lives to look at.
    asked: VecDeque<Key>,
    /// The exit fds to watch, each until it becomes readable.
    watched: BTreeMap<Key, RawFd>,
    due: BTreeMap<Key, Instant>,
    now: Option<Instant>,
}

shared! { static WORK: Mutex<Work> = Mutex::new(Work::default()); }

fn work() -> MutexGuard<'static, Work> {
    WORK.lock().unwrap()
}

/// Why the thread looks at a life.
enum Reason {
    Asked,
    Readable,
    Due,
}

impl Work {
    fn next(&mut self) -> Option<(Key, Reason)> {
        if let Some(key) = self.asked.pop_front() {
            return Some((key, Reason::Asked));
        }
        let mut watched = self.watched.iter();
        if let Some((&key, _)) = watched.find(|(_, fd)| is_readable(**fd)) {
            self.watched.remove(&key);
            return Some((key, Reason::Readable));
        }
        let (&key, &at) = self.due.iter().min_by_key(|(_, at)| **at)?;
        self.due.remove(&key);
        self.now = Some(self.now().max(at));
        Some((key, Reason::Due))
    }

    /// The time in the model. It is later than any time that the code reads from the clock, so that
    /// no order depends on how long the model takes.
    fn now(&mut self) -> Instant {
        const AHEAD: Duration = Duration::from_secs(3600);
        *self.now.get_or_insert_with(|| Instant::now() + AHEAD)
    }
}

/// Does the work of the thread, until it would sleep forever.
pub fn run() {
    loop {
        // This is the work of the thread that waits for zombies.
        if exit::source() == Source::Portable {
            for child in registry::children() {
                child.learn();
            }
        }
        let (key, reason, now) = {
            let mut work = work();
            let Some((key, reason)) = work.next() else {
                return;
            };
            (key, reason, work.now())
        };
        if matches!(reason, Reason::Due) {
            loom::thread::yield_now();
        }
        let readable = matches!(reason, Reason::Readable);
        let at = registry::look(key, readable, now, || {
            work().watched.remove(&key);
        });
        let mut work = work();
        match at {
            Some(at) => work.due.insert(key, at),
            None => work.due.remove(&key),
        };
    }
}

/// How many lives there are.
pub fn living_count() -> usize {
    registry::keys().len()
}

/// Does nothing: the thread works when the model says so.
pub fn start() -> Result<(), Errno> {
    Ok(())
}

pub(crate) fn watch(key: Key, exit_fd: &ExitFd) -> Result<(), Errno> {
    work().watched.insert(key, exit_fd.as_raw_fd());
    Ok(())
}

pub(crate) fn attend(key: Key) -> Result<(), Errno> {
    work().asked.push_back(key);
    Ok(())
}

/// Not modelled.
pub fn at(_time: Instant, _errand: Errand) -> Result<(), Errno> {
    unreachable!("models have no guard")
}

/// Not modelled.
pub fn when_idle(_errand: Errand) -> Result<(), Errno> {
    unreachable!("models do not stop the VM")
}
