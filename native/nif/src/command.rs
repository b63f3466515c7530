//! A command, as its server process holds it: its status, its signals, and what happens when the
//! server dies.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use exile_os::exit::{self, Source};
#[cfg(loom)]
use exile_os::model::reaper;
#[cfg(not(loom))]
use exile_os::reaper;
use exile_os::sync::{AtomicBool, Mutex, MutexGuard};
use exile_os::{Child, Errno, Signal, Status, Teardown, child, shared};
use rustler::types::atom::Atom;
use rustler::{Binary, Encoder, Env, Error, NifResult, Term};

use crate::pipe::Pipe;
use crate::resource::{self, Caller, Direction, Handle, Kind, Monitor, Pid, Resource, Wait, pid};
use crate::{atoms, encode, end, turn};

/// A command whose server is its Erlang process. Dropped, or with its server dead, it is ended
/// by the reaper.
pub(crate) struct Command {
    life: Arc<Life>,
    server: Pid,
    /// The VM has the descriptor that tells of its end.
    selected: AtomicBool,
    /// Watches the server, until either ends.
    monitor: Mutex<Option<Monitor>>,
}

/// What outlives the resource while the reaper is at work.
pub(crate) struct Life {
    pub(crate) child: Arc<Child>,
    /// How it is ended when nobody waits for it any more, and when the VM ends.
    abandoned: Teardown,
    at_stop: Teardown,
    /// Who is told when it has ended.
    told: Mutex<Told>,
}

/// Those who are told when a command has ended. After that, nobody is entered any more.
struct Told {
    ended: bool,
    pipes: Vec<Handle<Pipe>>,
    waits: Vec<Wait>,
}

shared! {
    /// All living commands, for the end of the VM.
    static LIVING: Mutex<BTreeMap<usize, Weak<Life>>> = Mutex::new(BTreeMap::new());
}

/// Entered when a command runs, left when nobody has it any more; the key is its address.
pub(crate) fn living() -> MutexGuard<'static, BTreeMap<usize, Weak<Life>>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Life {
    fn drop(&mut self) {
        living().remove(&std::ptr::from_ref(self).addr());
    }
}

impl Life {
    pub(crate) fn new(
        child: Arc<Child>,
        pipes: Vec<Handle<Pipe>>,
        abandoned: Teardown,
        at_stop: Teardown,
    ) -> Arc<Life> {
        let told = Mutex::new(Told {
            ended: false,
            pipes,
            waits: Vec::new(),
        });
        Arc::new(Life {
            child,
            abandoned,
            at_stop,
            told,
        })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the command ended, if it has. The first to see it tells the others.
    pub(crate) fn status(&self, caller: Caller) -> Option<Status> {
        let status = self.child.try_status()?;
        let (pipes, waits) = {
            let mut told = self.told();
            told.ended = true;
            (
                std::mem::take(&mut told.pipes),
                std::mem::take(&mut told.waits),
            )
        };
        for pipe in pipes {
            pipe.command_ended(caller);
        }
        for wait in waits {
            wait.wake(caller);
        }
        Some(status)
    }

    /// Enters a process that waits for the end. `false`: it has come.
    pub(crate) fn enter(&self, wait: Wait) -> bool {
        let mut told = self.told();
        if !told.ended {
            told.waits.push(wait);
        }
        !told.ended
    }

    /// Gives up waits. `true`: there was one, and its message will not come.
    pub(crate) fn give_up(&self, is_meant: impl Fn(&Wait) -> bool) -> bool {
        let mut told = self.told();
        let before = told.waits.len();
        told.waits.retain(|wait| !is_meant(wait));
        told.waits.len() < before
    }

    /// Nobody waits for it any more: the reaper ends it, and tells.
    fn abandon(self: &Arc<Self>) {
        // The reaper was started at load, so there is one to take it.
        let _ = self.terminate(self.abandoned.clone());
    }

    fn terminate(self: &Arc<Self>, teardown: Teardown) -> Result<(), Errno> {
        let life = Arc::clone(self);
        reaper::terminate(
            &self.child,
            teardown,
            Box::new(move || {
                life.status(Caller::THREAD);
            }),
        )
    }
}

impl Resource for Command {
    const NAME: &'static str = "Command";

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn stop(&self) {
        self.life.child.unwatched();
    }

    fn down(handle: &Handle<Self>, caller: Caller, _server: Pid) {
        // Others may have learned the status first; those who wait are told here at the latest.
        // Not looked at twice: one that ended between two looks would have nobody who tells.
        if handle.life.status(caller).is_none() {
            handle.life.abandon();
        }
        handle.let_go(caller);
        drop(handle.server_monitor().take());
    }
}

impl Command {
    fn server_monitor(&self) -> MutexGuard<'_, Option<Monitor>> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if self.life.child.try_status().is_none() {
            self.life.abandon();
        }
    }
}

impl Handle<Command> {
    pub(crate) fn serve(
        caller: Caller,
        life: Arc<Life>,
        server: Pid,
        wait: Wait,
    ) -> Result<Handle<Command>, Errno> {
        let handle = Handle::new(Command {
            life,
            server,
            selected: AtomicBool::new(false),
            monitor: Mutex::new(None),
        });
        handle.watch(wait)?;
        if !handle.watch_server(caller, server) {
            // It was killed during the spawn: nobody will see what is returned.
            Command::down(&handle, caller, server);
        }
        Ok(handle)
    }

    /// Has the server told when the command ends.
    fn watch(&self, wait: Wait) -> Result<(), Errno> {
        // It has ended and others know its status already: as all commands are being ended.
        let end = self.life.child.watch().ok_or(Errno::ECANCELED)?;
        match self.select(end.as_raw_fd(), Direction::Read, &wait) {
            Ok(()) => {
                self.selected.store(true, Ordering::Release);
                Ok(())
            }
            Err(resource::Refused) => {
                self.life.child.unwatched();
                Err(Errno::ENOMEM)
            }
        }
    }

    /// `false` when the server is dead already.
    fn watch_server(&self, caller: Caller, server: Pid) -> bool {
        // Under the lock, so that a server that dies meanwhile finds its monitor there.
        let mut monitor = self.server_monitor();
        *monitor = self.monitor(caller, server);
        monitor.is_some()
    }

    /// Takes that descriptor back from the VM.
    fn let_go(&self, caller: Caller) {
        if self.selected.swap(false, Ordering::AcqRel) {
            if let Some(end) = self.life.child.watch() {
                self.stop(caller, end.as_raw_fd());
            }
        }
    }

    /// How the command ended, if it has. When its server sees that, the descriptor is not needed any
    /// more; when others do, the server has yet to get its message.
    pub(crate) fn status(&self, caller: Caller, pid: Pid) -> Option<Status> {
        let status = self.life.status(caller)?;
        if pid == self.server {
            self.let_go(caller);
        }
        Some(status)
    }

    /// The same, but while the command runs `wait` is entered. Without either it ended between
    /// the two looks; then there is a status now.
    pub(crate) fn status_or_wait(&self, caller: Caller, pid: Pid, wait: Wait) -> Outcome {
        let status = self.status(caller, pid);
        if status.is_none() && self.life.enter(wait) {
            return Outcome::Waits;
        }
        Outcome::Known(status.or_else(|| self.status(caller, pid)))
    }
}

/// What came of asking for a status.
pub(crate) enum Outcome {
    Known(Option<Status>),
    /// A message will come.
    Waits,
}

/// Called when the library is loaded. `exit_source` is the atom `wait` or `portable` where
/// statuses are to be had in this way even if the kernel knows a better one.
pub(crate) fn start(exit_source: Term<'_>) -> Result<(), Errno> {
    let wanted = match exit_source.decode::<Atom>() {
        Ok(atom) if atom == atoms::wait() => Some(Source::Wait),
        Ok(atom) if atom == atoms::portable() => Some(Source::Portable),
        _ => None,
    };
    exit::choose(wanted);
    reaper::start()
}

/// `:pidfd`, or `:wait` or `:portable`, where SIGCHLD must have its default disposition.
#[rustler::nif]
fn exit_source() -> Atom {
    match exit::source() {
        Source::Pidfd => atoms::pidfd(),
        Source::Wait => atoms::wait(),
        Source::Portable => atoms::portable(),
    }
}

/// How many things are open, by name: all zero when nothing runs.
#[rustler::nif]
fn counts() -> Vec<(Atom, usize)> {
    vec![
        (atoms::pipes(), end::open_count()),
        (atoms::children(), child::open_count()),
        (atoms::monitors(), resource::monitor_count()),
        (atoms::grown_pipes(), end::grown_count()),
        (atoms::teardowns(), reaper::under_way()),
        (atoms::waiting(), turn::waiting_count()),
    ]
}

/// Signals by name, each with the milliseconds to wait after it.
pub(crate) type Steps<'a> = Vec<(Binary<'a>, u64)>;

/// Makes the caller the server of a command: from here on it is ended when its handle is dropped
/// or the server dies.
pub(crate) fn serve(
    env: Env<'_>,
    life: Arc<Life>,
    reference: Term<'_>,
) -> Result<Handle<Command>, Errno> {
    let server = pid(env);
    Handle::serve(env.into(), life, server, Wait::new(server, reference))
}

/// `true` if there is a signal of this name.
#[rustler::nif]
fn is_signal(name: Binary<'_>) -> bool {
    signal(&name).is_ok()
}

/// `:running`, `{:exited, code}`, `{:signaled, signal, core_dumped}` or `:unknown`.
#[rustler::nif]
fn command_status(env: Env<'_>, command: Handle<Command>) -> Term<'_> {
    let status = command.status(env.into(), pid(env));
    encode::status(env, status)
}

/// The same, but while the command runs: `:wait`, and the caller gets a message with `reference`
/// when it has ended.
#[rustler::nif]
fn command_wait<'a>(env: Env<'a>, command: Handle<Command>, reference: Term<'a>) -> Term<'a> {
    let wait = Wait::new(pid(env), reference);
    match command.status_or_wait(env.into(), pid(env), wait) {
        Outcome::Known(status) => encode::status(env, status),
        Outcome::Waits => atoms::wait().encode(env),
    }
}

/// Gives up such a wait. `:ok`: its message will not come. `:sent`: it has been sent.
#[rustler::nif]
fn command_cancel(command: Handle<Command>, reference: Term<'_>) -> Atom {
    if command.life.give_up(|wait| wait.is(reference)) {
        atoms::ok()
    } else {
        atoms::sent()
    }
}

/// The process id, or `:undefined` when the command has ended.
#[rustler::nif]
fn command_pid(env: Env<'_>, command: Handle<Command>) -> Term<'_> {
    match command.status(env.into(), pid(env)) {
        None => command.life.child.pid().encode(env),
        Some(_) => atoms::undefined().encode(env),
    }
}

/// `:ok` or `{:error, reason}`.
#[rustler::nif]
fn command_signal<'a>(
    env: Env<'a>,
    command: Handle<Command>,
    name: Binary<'a>,
) -> NifResult<Term<'a>> {
    Ok(match command.life.child.signal(signal(&name)?) {
        Ok(()) => atoms::ok().encode(env),
        Err(errno) => encode::error(env, errno),
    })
}

/// Has the reaper end the command: after `grace` milliseconds by `steps`, signals with the
/// milliseconds after each, then by SIGKILL. `:ok` or `{:error, reason}`.
#[rustler::nif]
fn command_terminate<'a>(
    env: Env<'a>,
    command: Handle<Command>,
    grace: u64,
    steps: Steps<'a>,
) -> NifResult<Term<'a>> {
    Ok(match command.life.terminate(teardown(grace, steps)?) {
        Ok(()) => atoms::ok().encode(env),
        Err(errno) => encode::error(env, errno),
    })
}

/// Lets commands be spawned, again after [`terminate_all`].
#[rustler::nif]
fn allow_spawns() -> Atom {
    turn::open();
    atoms::ok()
}

/// Lets no command be spawned any more, and has the reaper end every command that runs, each in
/// its own way, all at once. The caller gets a message with `reference` when nothing is left to
/// do. Returns for how many milliseconds the slowest may go on until SIGKILL, and how many
/// spawns were still under way: while there are any, more commands may come.
#[rustler::nif]
fn terminate_all<'a>(env: Env<'a>, reference: Term<'a>) -> (u64, usize) {
    let spawning = turn::close(env.into());
    let living: Vec<Arc<Life>> = living().values().filter_map(Weak::upgrade).collect();
    let mut longest = Duration::ZERO;
    for life in living
        .iter()
        .filter(|life| life.child.try_status().is_none())
    {
        longest = longest.max(life.at_stop.duration());
        let _ = life.terminate(life.at_stop.clone());
    }
    let wait = Wait::new(pid(env), reference);
    let _ = reaper::when_idle(Box::new(move || {
        wait.wake(Caller::THREAD);
    }));
    let longest = longest.as_millis().try_into().unwrap_or(u64::MAX);
    (longest, spawning)
}

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
