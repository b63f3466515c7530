//! A spawn that was requested and is not answered yet.
//!
//! ```text
//!  asked ──answered────▶ over: the message has been sent
//!    └─────given up────▶ over: no message comes, and what is being made is killed
//! ```
//!
//! A request is given up when the process that made it dies or stops waiting, and when the
//! application stops. A stopped application accepts no new requests. Each earlier one is answered
//! or given up, so once no spawner is busy, no process can appear unseen.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use exile_os::sync::{Mutex, MutexGuard};
use exile_os::{Attempt, Errno, SpawnError, Step, shared};

use crate::encode;
use crate::resource::{Handle, Kind, Resource};
use crate::wait::{Caller, Pid, Wait};
use crate::watch::Monitor;

/// A spawn, as the requesting process holds it.
pub(crate) struct Request {
    key: u64,
    pub(crate) attempt: Attempt,
    asked: Mutex<Option<Asked>>,
}

struct Asked {
    wait: Wait,
    /// Monitors the requesting process.
    monitor: Option<Monitor>,
}

struct Door {
    closed: bool,
    /// The requests that were let in and are not answered yet.
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

/// Allows processes to be spawned.
pub(crate) fn open_door() {
    door().closed = false;
}

/// Stops processes from being spawned. Pending requests are given up, with an answer.
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

/// The answer while the application does not run.
pub(crate) const CLOSED: SpawnError = SpawnError {
    step: Step::Clone,
    errno: Errno::ECANCELED,
};

/// How many spawns are not answered yet.
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
    /// Enters a request of `pid`, which waits with `wait`; `None` if the door is closed. The door
    /// does not apply to a program of Exile itself (`apart`), which starts before all others and
    /// ends after them.
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
            // Under the lock, so that if the process dies meanwhile, its request is given up.
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

    /// Gives up the request: nobody wants the answer. Returns `false` if it has been sent.
    pub(crate) fn give_up(&self) -> bool {
        let given_up = self.over().is_some();
        if given_up {
            self.attempt.cancel();
        }
        given_up
    }

    /// Ends the request. Returns the wait to answer, or `None` if it was over before.
    pub(crate) fn over(&self) -> Option<Wait> {
        let asked = self.asked().take()?;
        let entered = door().requests.remove(&self.key);
        drop(entered);
        drop(asked.monitor);
        Some(asked.wait)
    }
}
