//! A process, as Erlang code holds it: its status, its signals, its end; and what belongs to it in
//! the VM.
//!
//! While it runs it holds itself: it lives as long as its owner, whether anybody has a handle or not.

use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use exile_os::exit::ExitFd;
use exile_os::life::{keeper, living};
use exile_os::sync::{Mutex, MutexGuard};
use exile_os::{Errno, Kin, Signal, Status, Teardown};
use rustler::types::atom::Atom;
use rustler::{Binary, Encoder, Env, Error, NifResult, Term};

use crate::pipe::{Dependants, Pipe};
use crate::resource::{Caller, Handle, Kind, Monitor, Pid, Resource, Wait, pid};
use crate::{atoms, encode};

/// The record of a process.
pub(crate) type Life = exile_os::Life<Bonds>;

/// A process, as Erlang code holds it.
pub(crate) struct Process(Arc<Life>);

/// What belongs to a process in the VM.
pub(crate) struct Bonds(Mutex<State>);

struct State {
    owner: Pid,
    /// Watches the owner until the process has ended.
    monitor: Option<Monitor>,
    /// Keeps the resource, and with it the monitor, while the process runs.
    itself: Option<Handle<Process>>,
    pipes: Vec<Handle<Pipe>>,
    /// All processes of its pipeline, itself included.
    pipeline: Vec<Weak<Life>>,
    waits: Vec<(Until, Wait)>,
    ended: bool,
    /// A teardown is under way.
    claimed: bool,
    /// Why the last teardown ended nothing.
    refused: Option<Errno>,
    /// Which process reads what this one writes.
    next: Option<Weak<Life>>,
    /// The process whose output this one reads, as long as that may hold this one up.
    before: Option<Before>,
}

/// What may hold up a process that reads what another one writes: descendants of that, which still
/// hold the pipe when it has ended.
struct Before {
    life: Arc<Life>,
    /// Kept to reach its group after its end.
    end: Arc<ExitFd>,
    /// How long they may hold it.
    drain: Duration,
}

/// What a process of the VM waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The process has ended.
    Exit,
    /// It has ended, or may not be signalled.
    Exhausted,
    /// It has ended and no teardown is under way, so that nobody is left of its group, or it may not
    /// be signalled.
    Over,
}

impl State {
    fn has_come(&self, until: Until) -> bool {
        match until {
            Until::Exit => self.ended,
            Until::Exhausted => self.ended || self.refused.is_some(),
            Until::Over => !self.claimed && (self.ended || self.refused.is_some()),
        }
    }

    /// Takes the waits that have come to their end.
    fn take_waits(&mut self) -> Vec<Wait> {
        let all = std::mem::take(&mut self.waits);
        let (over, kept) = all
            .into_iter()
            .partition(|(until, _)| self.has_come(*until));
        self.waits = kept;
        over.into_iter()
            .map(|(_, wait): (Until, Wait)| wait)
            .collect()
    }
}

impl Bonds {
    pub(crate) fn new(owner: Pid) -> Bonds {
        Bonds(Mutex::new(State {
            owner,
            monitor: None,
            itself: None,
            pipes: Vec::new(),
            pipeline: Vec::new(),
            waits: Vec::new(),
            ended: false,
            claimed: false,
            refused: None,
            next: None,
            before: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if it did, the state would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_owner(&self, pid: Pid) -> bool {
        self.lock().owner == pid
    }

    /// Makes it one of the processes of a pipeline.
    pub(crate) fn join(&self, pipeline: &[Arc<Life>]) {
        self.lock().pipeline = pipeline.iter().map(Arc::downgrade).collect();
    }

    /// Has a pipe told when the process has ended.
    pub(crate) fn attach(&self, caller: Caller, pipe: &Handle<Pipe>) {
        {
            let mut state = self.lock();
            if !state.ended {
                state.pipes.push(pipe.clone());
                return;
            }
        }
        pipe.process_ended(caller);
    }

    /// Enters a wait, unless what it waits for has come: the end, or else why it may not be signalled.
    pub(crate) fn enter(&self, until: Until, wait: Wait) -> Result<(), Option<Errno>> {
        let mut state = self.lock();
        if state.has_come(until) {
            // Under the lock: the next claim takes the refusal back.
            return Err(state.refused.filter(|_| !state.ended));
        }
        state.waits.push((until, wait));
        Ok(())
    }

    /// Gives up waits. `true`: there was one, and its message will not come.
    pub(crate) fn give_up(&self, is_meant: impl Fn(&Wait) -> bool) -> bool {
        let mut state = self.lock();
        let before = state.waits.len();
        state.waits.retain(|(_, wait)| !is_meant(wait));
        state.waits.len() < before
    }
}

/// The processes that are ended when the owner of a pipe dies.
pub(crate) struct Ends {
    pub(crate) lives: Vec<Weak<Life>>,
    /// All of them; else those that the same process owns.
    pub(crate) all: bool,
}

impl Dependants for Ends {
    fn owner_died(&self, pid: Pid, is_owner: bool) {
        let all = self.all && is_owner;
        end_those(&self.lives, |life| all || life.kin().is_owner(pid));
    }
}

/// Ends those of a pipeline that are meant, in their own ways and together.
fn end_those(pipeline: &[Weak<Life>], are_meant: impl Fn(&Life) -> bool) {
    let lives = pipeline.iter().filter_map(Weak::upgrade);
    end_together(lives.filter(|life| are_meant(life)));
}

/// Ends processes in their own ways and together.
pub(crate) fn end_together(lives: impl Iterator<Item = Arc<Life>>) {
    let endings: Vec<_> = lives
        .map(|life| {
            let teardown = life.teardown().clone();
            (life, teardown)
        })
        .collect();
    living::end_all(&endings);
}

impl Kin for Bonds {
    type Caller = Caller;
    const KEEPER: Caller = Caller::THREAD;

    fn claimed(&self) {
        let mut state = self.lock();
        state.claimed = true;
        state.refused = None;
    }

    fn ended(&self, caller: Caller) {
        let (pipes, waits, itself, monitor, before, next) = {
            let mut state = self.lock();
            if state.ended {
                return;
            }
            state.ended = true;
            (
                std::mem::take(&mut state.pipes),
                state.take_waits(),
                state.itself.take(),
                state.monitor.take(),
                state.before.take(),
                state.next.take(),
            )
        };
        drop(before);
        if let Some(next) = next.and_then(|next| next.upgrade()) {
            drain(&next);
        }
        for pipe in pipes {
            pipe.process_ended(caller);
        }
        for wait in waits {
            wait.wake(caller);
        }
        if let (Some(itself), Some(monitor)) = (itself, monitor) {
            itself.demonitor(caller, monitor);
        }
    }

    fn over(&self, refused: Option<Errno>) {
        let waits = {
            let mut state = self.lock();
            state.claimed = false;
            state.refused = refused;
            state.take_waits()
        };
        for wait in waits {
            wait.wake(Self::KEEPER);
        }
    }
}

/// Gives each process `patience` to read what descendants of the one before it hold open. `ends` are
/// their exit fds.
pub(crate) fn bound_drains(
    lives: &[Arc<Life>],
    ends: Vec<Option<Arc<ExitFd>>>,
    patience: Duration,
) {
    for (pair, end) in lives.windows(2).zip(ends) {
        let ([life, next], Some(end)) = (pair, end) else {
            continue;
        };
        {
            let mut state = next.kin().lock();
            if !state.ended {
                state.before = Some(Before {
                    life: Arc::clone(life),
                    end,
                    drain: patience,
                });
            }
        }
        let ended = {
            let mut state = life.kin().lock();
            state.next = Some(Arc::downgrade(next));
            state.ended
        };
        if ended {
            // It ended too soon to know of the next.
            drain(next);
        }
    }
}

/// The process before this one has ended: what it left has its time from now on.
fn drain(next: &Arc<Life>) {
    let Some(drain) = next.kin().lock().before.as_ref().map(|before| before.drain) else {
        return;
    };
    let next = Arc::downgrade(next);
    let errand = Box::new(move || {
        if let Some(next) = next.upgrade() {
            cut_off(&next);
        }
    });
    let _ = keeper::at(Instant::now() + drain, errand);
}

/// Ends what keeps a process waiting for the end of its input; if that does not help, the process.
fn cut_off(next: &Arc<Life>) {
    let before = next.kin().lock().before.take();
    let Some(Before { life, end, .. }) = before else {
        return;
    };
    if next.child().waits_for_input() == Some(false) {
        return;
    }
    life.end_rest(end);
    let next = Arc::downgrade(next);
    let errand = Box::new(move || {
        if let Some(next) = next.upgrade() {
            // One that may be at work is not ended on a guess.
            if next.child().waits_for_input() == Some(true) {
                next.end();
            }
        }
    });
    let _ = keeper::at(Instant::now() + life.patience() + CUT_PATIENCE, errand);
}

/// How long a process may take to see that its input has ended.
const CUT_PATIENCE: Duration = Duration::from_millis(100);

impl Resource for Process {
    const NAME: &'static str = "Process";
    /// Before pipes are closed, which may end it.
    const TOLD: u8 = 1;

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn down(handle: &Handle<Self>, caller: Caller, pid: Pid) {
        let (pipes, pipeline) = {
            let mut state = handle.0.kin().lock();
            if state.owner != pid {
                // It has been handed on.
                return;
            }
            drop(state.monitor.take());
            (state.pipes.clone(), state.pipeline.clone())
        };
        // First of all: a pipe that is closed may end a process, but not its group.
        let others = pipeline.iter().filter_map(Weak::upgrade);
        let others =
            others.filter(|life| !Arc::ptr_eq(life, &handle.0) && life.kin().is_owner(pid));
        end_together(std::iter::once(Arc::clone(&handle.0)).chain(others));
        for pipe in pipes {
            pipe.close(caller, pid);
        }
    }
}

impl Handle<Process> {
    /// Makes a life known to the VM: from here on it ends with its owner.
    pub(crate) fn of(caller: Caller, life: Arc<Life>, owner: Pid) -> Handle<Process> {
        let handle = Handle::new(Process(life));
        {
            let mut state = handle.0.kin().lock();
            if !state.ended {
                state.itself = Some(handle.clone());
            }
        }
        handle.set_owner(caller, owner);
        handle
    }

    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.0
    }

    /// Enters a wait, unless what it waits for has come.
    pub(crate) fn wait(&self, caller: Caller, until: Until, wait: Wait) -> Outcome {
        // The first to see the end tells, so that the wait below is not entered too late.
        self.0.status(caller);
        match self.0.kin().enter(until, wait) {
            Ok(()) => Outcome::Waits,
            Err(refused) => match (self.0.status(caller), refused) {
                (None, Some(errno)) => Outcome::Refused(errno),
                (status, _) => Outcome::Status(status),
            },
        }
    }

    /// Makes `owner` the owner. If it is dead, the process ends as if it had died a moment later.
    pub(crate) fn set_owner(&self, caller: Caller, owner: Pid) {
        let (old, alive) = {
            // Under the lock, so that an owner that dies meanwhile is found to be the owner.
            let mut state = self.0.kin().lock();
            state.owner = owner;
            if state.ended {
                return;
            }
            let monitor = self.monitor(caller, owner);
            let alive = monitor.is_some();
            (std::mem::replace(&mut state.monitor, monitor), alive)
        };
        if let Some(old) = old {
            self.demonitor(caller, old);
        }
        if !alive {
            Process::down(self, caller, owner);
        }
    }
}

/// What came of waiting.
pub(crate) enum Outcome {
    /// A message will come.
    Waits,
    Status(Option<Status>),
    /// It may not be signalled.
    Refused(Errno),
}

/// Ends processes when it is collected: for a stream that is suspended and that nobody can resume.
pub(crate) struct Tether {
    lives: Vec<Arc<Life>>,
    /// The process that is told when it is collected.
    told: Mutex<Option<Wait>>,
}

impl Resource for Tether {
    const NAME: &'static str = "Tether";

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn released(&mut self, caller: Caller) {
        end_together(self.lives.drain(..));
        let told = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = told.take() {
            wait.wake(caller);
        }
    }
}

impl Handle<Tether> {
    pub(crate) fn to(lives: Vec<Arc<Life>>) -> Handle<Tether> {
        Handle::new(Tether {
            lives,
            told: Mutex::new(None),
        })
    }

    /// Has a process told when it is collected.
    pub(crate) fn tell(&self, wait: Wait) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(wait);
    }
}

/// Has `pid` told, by a message with `reference`, when the tether is collected.
#[rustler::nif]
fn tether_tell(tether: Handle<Tether>, pid: Pid, reference: Term<'_>) -> Atom {
    let wait = Wait::new(pid, reference);
    tether.tell(wait);
    atoms::ok()
}

/// `:running`, `{:exited, code}`, `{:signaled, signal, core_dumped}` or `:unknown`.
#[rustler::nif]
fn process_status(env: Env<'_>, process: Handle<Process>) -> Term<'_> {
    encode::status(env, process.0.status(env.into()))
}

/// Waits for the end: `:exit`, the process has ended; `:exhausted`, or it may not be signalled;
/// `:over`, and its group is gone. The status; `{:error, reason}`, it may not be signalled; or
/// `:wait`, and the caller gets a message with `reference` when it is to ask again.
#[rustler::nif]
fn process_wait<'a>(
    env: Env<'a>,
    process: Handle<Process>,
    until: Atom,
    reference: Term<'a>,
) -> NifResult<Term<'a>> {
    let until = decode_until(until)?;
    let wait = Wait::new(pid(env), reference);
    Ok(match process.wait(env.into(), until, wait) {
        Outcome::Waits => atoms::wait().encode(env),
        Outcome::Status(status) => encode::status(env, status),
        Outcome::Refused(errno) => encode::error(env, errno),
    })
}

fn decode_until(until: Atom) -> NifResult<Until> {
    [
        (atoms::exit(), Until::Exit),
        (atoms::exhausted(), Until::Exhausted),
        (atoms::over(), Until::Over),
    ]
    .into_iter()
    .find_map(|(name, value)| (name == until).then_some(value))
    .ok_or(Error::BadArg)
}

/// Gives up such a wait. `:ok`: its message will not come. `:sent`: it has been sent.
#[rustler::nif]
fn process_cancel(process: Handle<Process>, reference: Term<'_>) -> Atom {
    if process.0.kin().give_up(|wait| wait.is(reference)) {
        atoms::ok()
    } else {
        atoms::sent()
    }
}

/// The process id, or `:undefined` when the process has ended.
#[rustler::nif]
fn process_pid(env: Env<'_>, process: Handle<Process>) -> Term<'_> {
    match process.0.status(env.into()) {
        None => process.0.child().pid().encode(env),
        Some(_) => atoms::undefined().encode(env),
    }
}

/// `:ok` or `{:error, reason}`.
#[rustler::nif]
fn process_signal<'a>(
    env: Env<'a>,
    process: Handle<Process>,
    name: Binary<'a>,
) -> NifResult<Term<'a>> {
    Ok(match process.0.child().signal(signal(&name)?) {
        Ok(()) => atoms::ok().encode(env),
        Err(errno) => encode::error(env, errno),
    })
}

/// Begins to end processes and their groups, each with its grace in milliseconds and its steps: signals
/// with the milliseconds after each, then SIGKILL. A process that had ended is left alone. When this
/// returns, which is at once, their pipes may be closed.
#[rustler::nif]
fn process_end(processes: Vec<(Handle<Process>, u64, Steps<'_>)>) -> NifResult<Atom> {
    let endings = processes
        .into_iter()
        .map(|(process, grace, steps)| Ok((Arc::clone(&process.0), teardown(grace, steps)?)))
        .collect::<NifResult<Vec<_>>>()?;
    living::end_all(&endings);
    Ok(atoms::ok())
}

/// Makes `owner` the owner.
#[rustler::nif]
fn process_set_owner(env: Env<'_>, process: Handle<Process>, owner: Pid) -> Atom {
    process.set_owner(env.into(), owner);
    atoms::ok()
}

/// `true` if there is a signal of this name.
#[rustler::nif]
fn is_signal(name: Binary<'_>) -> bool {
    signal(&name).is_ok()
}

/// Signals by name, each with the milliseconds to wait after it.
pub(crate) type Steps<'a> = Vec<(Binary<'a>, u64)>;

pub(crate) fn teardown(grace: u64, steps: Steps<'_>) -> NifResult<Teardown> {
    let steps = steps
        .into_iter()
        .map(|(name, wait)| Ok((signal(&name)?, Duration::from_millis(wait))))
        .collect::<NifResult<_>>()?;
    Ok(Teardown {
        grace: Duration::from_millis(grace),
        steps,
    })
}

fn signal(name: &Binary<'_>) -> NifResult<Signal> {
    let name = std::str::from_utf8(name.as_slice()).map_err(|_| Error::BadArg)?;
    Signal::from_name(name).ok_or(Error::BadArg)
}
