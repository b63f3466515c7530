//! A spawn that was asked for and is not answered yet.
//!
//! ```text
//!  asked ──answered────▶ over: the message has been sent
//!    └─────given up────▶ over: no message comes, and what is being made is killed
//! ```
//!
//! It is given up when the process that asked dies or does not want to wait any longer, and when the
//! application stops. Then nobody may ask any more: what is asked before is answered or given up,
//! and once no spawner is at work no process can come to be unseen.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use exile_os::sync::{Mutex, MutexGuard};
use exile_os::{Attempt, Errno, SpawnError, Step, shared};

use crate::encode;
use crate::resource::{Handle, Kind, Resource};
use crate::wait::{Caller, Pid, Wait};
use crate::watch::Monitor;

/// The spawn, as the process that asked holds it.
pub(crate) struct Request {
    key: u64,
    pub(crate) attempt: Attempt,
    asked: Mutex<Option<Asked>>,
}

struct Asked {
    wait: Wait,
    /// Of the process that asked.
    monitor: Option<Monitor>,
}

struct Door {
    closed: bool,
    /// Those that came through the door.
    requests: BTreeMap<u64, Handle<Request>>,
}

shared! {
    static DOOR: Mutex<Door> = Mutex::new(Door {
        closed: true,
        requests: BTreeMap::new(),
    });
}
static LAST_KEY: AtomicU64 = AtomicU64::new(0);

fn door() -> MutexGuard<'static, Door> {
    DOOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets processes be spawned.
pub(crate) fn open_door() {
    door().closed = false;
}

/// Lets no process be spawned any more. What was asked is given up, with an answer.
pub(crate) fn close_door(caller: Caller) {
    let requests = {
        let mut door = door();
        door.closed = true;
        std::mem::take(&mut door.requests)
    };
    for request in requests.into_values() {
        if let Some(wait) = request.over() {
            request.attempt.cancel();
            wait.answer(caller, |env| encode::spawn_error(env, 0, CLOSED));
        }
    }
}

/// What is answered when the application does not run.
pub(crate) const CLOSED: SpawnError = SpawnError {
    step: Step::Clone,
    errno: Errno::ECANCELED,
};

/// How many spawns are not answered.
pub(crate) fn open_count() -> usize {
    door().requests.len()
}

impl Resource for Request {
    const NAME: &'static str = "Request";

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn down(handle: &Handle<Self>, _caller: Caller, _pid: Pid) {
        handle.give_up();
    }
}

impl Request {
    fn asked(&self) -> MutexGuard<'_, Option<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was answered or given up.
    pub(crate) fn is_over(&self) -> bool {
        self.asked().is_none()
    }
}

impl Handle<Request> {
    /// Enters the wish of `pid`, which waits with `wait`; `None` when the door is closed. For a
    /// program of our own, which is there before all others and after them, there is no door.
    pub(crate) fn ask(
        caller: Caller,
        pid: Pid,
        wait: Wait,
        apart: bool,
    ) -> Option<Handle<Request>> {
        let request = Handle::new(Request {
            key: LAST_KEY.fetch_add(1, Ordering::Relaxed),
            attempt: Attempt::new(),
            asked: Mutex::new(None),
        });
        {
            // Under the lock, so that a process that dies meanwhile finds what to give up.
            let mut asked = request.asked();
            let monitor = request.monitor(caller, pid);
            *asked = Some(Asked { wait, monitor });
        }
        if apart {
            return Some(request);
        }
        let mut door = door();
        if door.closed {
            drop(door);
            request.over();
            return None;
        }
        door.requests.insert(request.key, request.clone());
        Some(request)
    }

    /// Nobody wants the answer. `false`: it has been sent.
    pub(crate) fn give_up(&self) -> bool {
        let given_up = self.over().is_some();
        if given_up {
            self.attempt.cancel();
        }
        given_up
    }

    /// Ends it. Returns with whom to answer; `None`: it was over before.
    pub(crate) fn over(&self) -> Option<Wait> {
        let asked = self.asked().take()?;
        let entered = door().requests.remove(&self.key);
        drop(entered);
        drop(asked.monitor);
        Some(asked.wait)
    }
}
