//! Waiting for the death of a process of the VM. Each process that is waited for has one [`Watch`],
//! which the VM monitors; it tells all objects that wait for the process.
//!
//! Why objects have no monitors of their own: if an object is destroyed before the process has noticed
//! that it is no longer monitored, `process_info(Pid, monitored_by)` still finds the object and makes a
//! reference to it, and the VM (OTP 25 to 29) then destroys the object a second time. A watch lives as
//! long as the process.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use exile_os::shared;
use exile_os::sync::{Mutex, MutexGuard};

use crate::resource::{Handle, Kind, Resource};
use crate::wait::{Caller, Pid};

static MONITORS: AtomicUsize = AtomicUsize::new(0);

/// How many objects wait for the death of a process.
pub(crate) fn monitor_count() -> usize {
    MONITORS.load(Ordering::Acquire)
}

/// Everything that waits for the death of one process.
pub(crate) struct Watch {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The process is dead, and those that waited have been told.
    over: bool,
    last: u64,
    /// Sorted by [`Resource::TOLD`], then by age.
    all: BTreeMap<(u8, u64), Told>,
}

/// Tells an object of the death.
type Told = Box<dyn FnOnce(Caller, Pid) + Send>;

shared! {
    /// One watch for each process.
    static WATCHES: Mutex<BTreeMap<Pid, Handle<Watch>>> = Mutex::new(BTreeMap::new());
}

fn watches() -> MutexGuard<'static, BTreeMap<Pid, Handle<Watch>>> {
    WATCHES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watch of a process; `None` if that is dead.
fn watch(caller: Caller, pid: Pid) -> Option<Handle<Watch>> {
    // Locked throughout, so that a process has one watch only. The VM calls nothing of ours here.
    let mut watches = watches();
    if let Some(watch) = watches.get(&pid) {
        return Some(watch.clone());
    }
    let watch = Handle::new(Watch {
        waiting: Mutex::new(Waiting::default()),
    });
    if !watch.monitor_process(caller, pid) {
        return None;
    }
    watches.insert(pid, watch.clone());
    Some(watch)
}

impl Watch {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resource for Watch {
    const NAME: &'static str = "Watch";

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn down(handle: &Handle<Self>, caller: Caller, pid: Pid) {
        let watch = watches().remove(&pid);
        let all = {
            let mut waiting = handle.waiting();
            waiting.over = true;
            std::mem::take(&mut waiting.all)
        };
        for told in all.into_values() {
            told(caller, pid);
        }
        drop(watch);
    }
}

/// An object waits for the death of a process until this is dropped.
pub(crate) struct Monitor {
    watch: Handle<Watch>,
    place: (u8, u64),
}

impl Drop for Monitor {
    fn drop(&mut self) {
        MONITORS.fetch_sub(1, Ordering::AcqRel);
        let told = self.watch.waiting().all.remove(&self.place);
        // Without the lock: the object may be dropped with it, and another monitor with the object.
        drop(told);
    }
}

impl<R: Resource> Handle<R> {
    /// Has [`Resource::down`] called when `pid` dies. The object is kept until then, or until the
    /// monitor is dropped. `None`: `pid` is dead already.
    pub(crate) fn monitor(&self, caller: Caller, pid: Pid) -> Option<Monitor> {
        let watch = watch(caller, pid)?;
        let handle = self.clone();
        let told: Told = Box::new(move |caller, pid| R::down(&handle, caller, pid));
        let place = {
            let mut waiting = watch.waiting();
            if waiting.over {
                return None;
            }
            waiting.last += 1;
            let place = (R::TOLD, waiting.last);
            waiting.all.insert(place, told);
            place
        };
        MONITORS.fetch_add(1, Ordering::AcqRel);
        Some(Monitor { watch, place })
    }
}
