//! The VM as the model sees it, in place of `resource` and `wait`: objects, monitors, `enif_select` and
//! messages, behind one lock, so that every call is a moment at which the checker may let another
//! thread go first. The callbacks are called without the lock, as the VM does it.
//!
//! What the VM does not forgive fails at once: a descriptor that is closed while it is selected,
//! a wait that silently takes the place of another, a stop of what was never selected.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::Arc;

use exile_os::model::world::is_open;
use exile_os::shared;
use exile_os::sync::{Mutex, MutexGuard};
use rustler::{Decoder, Encoder, Env, NifResult, Term};

/// A process of this VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pid(pub(crate) u32);

impl Decoder<'_> for Pid {
    fn decode(_term: Term<'_>) -> NifResult<Self> {
        unreachable!("models have no terms")
    }
}

pub(crate) fn pid(_env: Env<'_>) -> Pid {
    unreachable!("models have no terms")
}

/// Where a call comes from.
#[derive(Clone, Copy)]
pub(crate) struct Caller;

impl Caller {
    pub(crate) const THREAD: Caller = Caller;
}

impl From<Env<'_>> for Caller {
    fn from(_env: Env<'_>) -> Caller {
        Caller
    }
}

pub(crate) trait Resource: Sized + Send + Sync + 'static {
    const NAME: &'static str;
    const TOLD: u8 = 0;
    fn kind() -> &'static Kind;
    fn stop(&self) {}
    fn down(_handle: &Handle<Self>, _caller: Caller, _pid: Pid) {}
    fn released(&mut self, _caller: Caller) {}
}

pub(crate) struct Kind;

impl Kind {
    pub(crate) const fn new() -> Kind {
        Kind
    }
}

/// What the VM knows of a descriptor from the first select to its stop.
struct Selected {
    wait: Option<(Pid, u32)>,
    stop: Box<dyn FnOnce() + Send>,
}

/// A monitor that has not fired.
struct Monitored {
    pid: Pid,
    down: Box<dyn FnOnce() + Send>,
}

#[derive(Default)]
struct Vm {
    /// How many there are.
    objects: usize,
    selected: BTreeMap<RawFd, Selected>,
    monitors: BTreeMap<u64, Monitored>,
    last_monitor: u64,
    dead: Vec<Pid>,
    messages: Vec<(Pid, u32)>,
    stops_later: bool,
    stops: Vec<Box<dyn FnOnce() + Send>>,
}

shared! { static VM: Mutex<Vm> = Mutex::new(Vm::default()); }

fn vm() -> MutexGuard<'static, Vm> {
    VM.lock().unwrap()
}

impl Vm {
    fn send(&mut self, pid: Pid, reference: u32) -> bool {
        let alive = !self.dead.contains(&pid);
        if alive {
            self.messages.push((pid, reference));
        }
        alive
    }

    /// What was selected with `fd`, which must be open still.
    fn of(&mut self, fd: RawFd) -> &mut Selected {
        assert!(is_open(fd), "descriptor {fd} is closed");
        self.selected.get_mut(&fd).expect("never selected")
    }
}

/// From here on descriptors are not stopped during the call but in [`stop_now`].
pub(crate) fn stop_later() {
    vm().stops_later = true;
}

/// Calls the stop callbacks that are due.
pub(crate) fn stop_now() {
    let stops = std::mem::take(&mut vm().stops);
    stops.into_iter().for_each(|stop| stop());
}

/// The descriptor is ready: the process that waits gets its message.
pub(crate) fn ready(fd: RawFd) {
    let mut vm = vm();
    if vm.selected.contains_key(&fd) {
        if let Some((pid, reference)) = vm.of(fd).wait.take() {
            vm.send(pid, reference);
        }
    }
}

/// The process dies, and its monitors fire.
pub(crate) fn die(pid: Pid) {
    let fired: BTreeMap<u64, Monitored> = {
        let mut vm = vm();
        vm.dead.push(pid);
        let all = std::mem::take(&mut vm.monitors).into_iter();
        let (fired, kept) = all.partition(|(_, monitored)| monitored.pid == pid);
        vm.monitors = kept;
        fired
    };
    for monitored in fired.into_values() {
        (monitored.down)();
    }
}

/// How many messages with this reference the process has got.
pub(crate) fn messages(pid: Pid, reference: u32) -> usize {
    let vm = vm();
    let all = vm.messages.iter();
    all.filter(|message| **message == (pid, reference)).count()
}

/// How many objects there are.
pub(crate) fn objects() -> usize {
    vm().objects
}

/// How many descriptors are selected.
pub(crate) fn selected() -> usize {
    vm().selected.len()
}

pub(crate) struct Handle<R: Resource>(Arc<Object<R>>);

/// An object of the VM: what has been selected keeps it, a monitor does not.
struct Object<R: Resource>(R);

impl<R: Resource> Drop for Object<R> {
    fn drop(&mut self) {
        // Whatever lock is held when the last handle is dropped, the VM may call right then.
        self.0.released(Caller);
        vm().objects -= 1;
    }
}

impl<R: Resource> Handle<R> {
    pub(crate) fn new(value: R) -> Handle<R> {
        vm().objects += 1;
        Handle(Arc::new(Object(value)))
    }

    pub(crate) fn select(
        &self,
        fd: RawFd,
        _direction: Direction,
        wait: &Wait,
    ) -> Result<(), Refused> {
        assert!(is_open(fd), "descriptor {fd} is closed");
        let mut vm = vm();
        let selected = vm.selected.entry(fd).or_insert_with(|| {
            let object = Arc::clone(&self.0);
            Selected {
                wait: None,
                stop: Box::new(move || object.0.stop()),
            }
        });
        let before = selected.wait.replace((wait.pid, wait.reference));
        assert_eq!(before, None, "a wait is replaced");
        Ok(())
    }

    pub(crate) fn cancel(&self, fd: RawFd, _direction: Direction, wait: &Wait) -> bool {
        let mut vm = vm();
        let cancelled = vm.of(fd).wait.take();
        assert!(cancelled.is_none_or(|(_, reference)| reference == wait.reference));
        cancelled.is_some()
    }

    pub(crate) fn stop(&self, _caller: Caller, fd: RawFd) {
        let direct = {
            let mut vm = vm();
            vm.of(fd);
            let selected = vm.selected.remove(&fd);
            let stop = selected.map(|selected| selected.stop);
            if vm.stops_later {
                vm.stops.extend(stop);
                None
            } else {
                stop
            }
        };
        if let Some(stop) = direct {
            stop();
        }
    }

    pub(crate) fn monitor_process(&self, _caller: Caller, pid: Pid) -> bool {
        let mut vm = vm();
        if vm.dead.contains(&pid) {
            return false;
        }
        vm.last_monitor += 1;
        let number = vm.last_monitor;
        let object = Arc::downgrade(&self.0);
        let monitored = Monitored {
            pid,
            down: Box::new(move || {
                if let Some(object) = object.upgrade() {
                    R::down(&Handle(object), Caller, pid);
                }
            }),
        };
        vm.monitors.insert(number, monitored);
        true
    }
}

impl<R: Resource> Deref for Handle<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.0.0
    }
}

impl<R: Resource> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Handle(Arc::clone(&self.0))
    }
}

impl<R: Resource> Encoder for Handle<R> {
    fn encode<'a>(&self, _env: Env<'a>) -> Term<'a> {
        unreachable!("models have no terms")
    }
}

impl<R: Resource> Decoder<'_> for Handle<R> {
    fn decode(_term: Term<'_>) -> NifResult<Self> {
        unreachable!("models have no terms")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

pub(crate) struct Refused;

/// A process that waits, and the reference by which it knows its message.
#[derive(Debug)]
pub(crate) struct Wait {
    pid: Pid,
    reference: u32,
}

impl Wait {
    pub(crate) fn new(_pid: Pid, _reference: Term<'_>) -> Wait {
        unreachable!("models have no terms")
    }

    pub(crate) fn of(pid: Pid, reference: u32) -> Wait {
        Wait { pid, reference }
    }

    pub(crate) fn is(&self, _reference: Term<'_>) -> bool {
        unreachable!("models have no terms")
    }

    pub(crate) fn has(&self, reference: u32) -> bool {
        self.reference == reference
    }

    pub(crate) fn is_for(&self, pid: Pid) -> bool {
        self.pid == pid
    }

    pub(crate) fn wake(self, _caller: Caller) -> bool {
        vm().send(self.pid, self.reference)
    }

    pub(crate) fn answer(self, _caller: Caller, _answer: impl FnOnce(Env<'_>) -> Term<'_>) -> bool {
        vm().send(self.pid, self.reference)
    }
}
