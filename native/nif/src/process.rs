//! A process, as Erlang code holds it: its status, its signals, its end.
//!
//! It lives as long as its owner, whether anybody has a handle or not: the monitor of the owner keeps it
//! while it runs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use exile_os::life::living;
use exile_os::{Errno, Signal, Status, Teardown};
use rustler::types::atom::Atom;
use rustler::{Decoder, Encoder, Env, Error, NifResult, Term};

use crate::bonds::{Left, Life, Until, end_together};
use crate::resource::{Handle, Kind, Resource};
use crate::wait::{Caller, Pid, Wait, pid};
use crate::{atoms, encode};

/// A process, as Erlang code holds it.
pub(crate) struct Process(Arc<Life>);

impl Resource for Process {
    const NAME: &'static str = "Process";
    /// Before pipes are closed, which may end it.
    const TOLD: u8 = 1;

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn down(handle: &Handle<Self>, caller: Caller, pid: Pid) {
        let Some(Left { pipes, pipeline }) = handle.0.kin().owner_died(pid) else {
            return;
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
        handle.set_owner(caller, owner);
        handle
    }

    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.0
    }

    /// Enters a wait, unless what it waits for has come.
    pub(crate) fn wait(&self, caller: Caller, until: Until, wait: Wait) -> Outcome {
        // This reports the end if nobody has seen it yet, so that the wait below is not entered too late.
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
        let watched = || self.monitor(caller, owner);
        let Some((old, alive)) = self.0.kin().set_owner(owner, watched) else {
            return;
        };
        drop(old);
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

/// `:running`, `:unknown` or `%{code: code, signal: signal, core_dumped: core_dumped}`.
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

/// Sends a signal to the process, or to its group. `:ok` or `{:error, reason}`.
#[rustler::nif]
fn process_signal<'a>(
    env: Env<'a>,
    process: Handle<Process>,
    signal: Named,
    to_group: bool,
) -> Term<'a> {
    let child = process.0.child();
    let sent = if to_group {
        child.signal_group(signal.0)
    } else {
        child.signal(signal.0)
    };
    match sent {
        Ok(()) => atoms::ok().encode(env),
        Err(errno) => encode::error(env, errno),
    }
}

/// Begins to end processes and their groups, each with its grace in milliseconds and its steps: signals
/// with the milliseconds after each, then SIGKILL. A process that had ended is left alone. When this
/// returns, which is at once, their pipes may be closed.
#[rustler::nif]
fn process_end(processes: Vec<(Handle<Process>, u64, Steps)>) -> Atom {
    let endings: Vec<_> = processes
        .into_iter()
        .map(|(process, grace, steps)| (Arc::clone(&process.0), teardown(grace, steps)))
        .collect();
    living::end_all(&endings);
    atoms::ok()
}

/// Makes `owner` the owner.
#[rustler::nif]
fn process_set_owner(env: Env<'_>, process: Handle<Process>, owner: Pid) -> Atom {
    process.set_owner(env.into(), owner);
    atoms::ok()
}

/// `true` if there is a signal of this name or number.
#[rustler::nif]
fn is_signal(signal: Term<'_>) -> bool {
    signal.decode::<Named>().is_ok()
}

/// A signal by its name as an atom, or by its number.
pub(crate) struct Named(Signal);

impl<'a> Decoder<'a> for Named {
    fn decode(term: Term<'a>) -> NifResult<Named> {
        let signal = match term.decode::<i32>() {
            Ok(number) => Signal::from_number(number),
            Err(_) => Signal::from_name(&term.atom_to_string()?),
        };
        signal.map(Named).ok_or(Error::BadArg)
    }
}

/// Signals, each with the milliseconds to wait after it.
pub(crate) type Steps = Vec<(Named, u64)>;

pub(crate) fn teardown(grace: u64, steps: Steps) -> Teardown {
    let steps = steps.into_iter();
    Teardown {
        grace: Duration::from_millis(grace),
        steps: steps
            .map(|(signal, wait)| (signal.0, Duration::from_millis(wait)))
            .collect(),
    }
}
