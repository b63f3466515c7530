//! Whose turn it is to spawn. Spawns run on the VM's threads for input and output, which its files
//! need, too, and more of them at once than there are cores make nothing faster. So only a few
//! run at once; who comes when it is not his turn holds no thread but gets a message when it may
//! be, and asks again.
//!
//! A process that is killed between its message and its asking takes that message along. The
//! others do not depend on it: they ask again by themselves after a while.
//!
//! When the application stops it closes the door: nobody gets a turn any more, and once those who
//! have one are done, no command can come to be unseen.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustler::{Env, Term};

use crate::resource::{Caller, Wait, pid};

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    closed: false,
    running: 0,
    waiting: VecDeque::new(),
});

struct Queue {
    closed: bool,
    running: usize,
    waiting: VecDeque<Wait>,
}

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Half of the threads that the VM has for input and output unless it was told otherwise.
const MOST: usize = 5;

/// How many may spawn at once: one more than there are cores, so that one that is held up by a
/// slow disk does not hold up all the others on a small machine.
fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        MOST.min(cores + 1)
    })
}

/// How many processes wait for their turn.
pub(crate) fn waiting_count() -> usize {
    queue().waiting.len()
}

/// Lets commands be spawned.
pub(crate) fn open() {
    queue().closed = false;
}

/// Lets no command be spawned any more; those who wait are told to ask. Returns how many spawns
/// are still under way.
pub(crate) fn close(caller: Caller) -> usize {
    let (running, waiting) = {
        let mut queue = queue();
        queue.closed = true;
        (queue.running, std::mem::take(&mut queue.waiting))
    };
    for wait in waiting {
        wait.wake(caller);
    }
    running
}

/// The right to spawn, while it lives.
pub(crate) struct Turn(Caller);

/// Why there is none.
pub(crate) enum Refused {
    /// The caller gets a message with its reference when it is worth asking again.
    NotYet,
    /// The application is stopping, or has stopped.
    Closed,
}

impl Turn {
    /// One who was told to ask again stands first, one who was not keeps his place.
    pub(crate) fn take(env: Env<'_>, reference: Term<'_>, again: bool) -> Result<Turn, Refused> {
        let mut queue = queue();
        if queue.closed {
            return Err(Refused::Closed);
        }
        // Who has become tired of waiting for his message asks again, too.
        let place = if again {
            queue.waiting.iter().position(|wait| wait.is_for(pid(env)))
        } else {
            None
        };
        if queue.running < limit() {
            queue.running += 1;
            if let Some(place) = place {
                queue.waiting.remove(place);
            }
            return Ok(Turn(env.into()));
        }
        let wait = Wait::new(pid(env), reference);
        match place {
            Some(place) => queue.waiting[place] = wait,
            None if again => queue.waiting.push_front(wait),
            None => queue.waiting.push_back(wait),
        }
        Err(Refused::NotYet)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        queue().running -= 1;
        loop {
            let next = queue().waiting.pop_front();
            // The dead are passed over.
            if next.is_none_or(|wait| wait.wake(self.0)) {
                return;
            }
        }
    }
}
