//! One end of a pipe, bound to the process that owns it.
//!
//! ```text
//!            would block: select                    owner dies,
//!           ┌───────────────────▶ waiting ──────┐   or closes
//!  idle ────┤                        │          ├──────────────▶ closing ──stop──▶ closed
//!           └◀── its one message ────┘          │                               ▲
//!             (ready, or woken by us)           └── never selected ─────────────┘
//! ```
//!
//! * Only the owner reads, writes or closes. Anyone may make another process the owner; an old
//!   owner that waits is woken.
//! * A wait ends with exactly one message: the VM's when the pipe is ready, ours when the owner
//!   changes or the command has ended. What the message means is found out by trying again.
//! * A read or write tries the system call first and selects only when that would block.
//! * All system calls happen under the lock and in the states idle and waiting. The lock is not
//!   held when the VM is told to stop, since it may call [`Pipe::stop`] right then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use exile_os::Errno;
use exile_os::pipe::{ReadEnd, WriteEnd};
use rustler::types::local_pid::LocalPid;
use rustler::{Encoder, Env, NifResult, Term};

use crate::end::{Batch, Chunk, End, Fd, Unusable, account};
use crate::resource::{Caller, Handle, Kind, Monitor, Resource, Wait};
use crate::{atoms, encode};

/// One end of a pipe, as Erlang code holds it.
pub(crate) struct Pipe {
    /// How many commands on the other side have not ended yet. When none is left, others may
    /// still hold the pipe open.
    commands: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    owner: LocalPid,
    monitor: Option<Monitor>,
    wait: Option<Wait>,
}

enum Phase {
    Open(End),
    /// The VM still has the descriptor; the stop callback closes it.
    Closing(#[allow(dead_code, reason = "held to be dropped")] End),
    Closed,
}

impl State {
    /// The end, if `caller` may use it. Whoever comes here has had the message of his last wait.
    fn used_by(&mut self, caller: LocalPid) -> Result<&mut End, Unusable> {
        match &mut self.phase {
            Phase::Open(end) if self.owner == caller => {
                self.wait = None;
                Ok(end)
            }
            _ => Err(Unusable::NotYours),
        }
    }
}

impl Resource for Pipe {
    const NAME: &'static str = "Pipe";

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn stop(&self) {
        self.lock().phase = Phase::Closed;
    }

    fn down(handle: &Handle<Self>, caller: Caller, pid: LocalPid) {
        // A monitor of an owner that has handed the pipe on may still fire.
        handle.close_if(caller, |state| state.owner == pid);
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if it did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle<Pipe> {
    /// Our end of a pipe that `commands` commands write to.
    pub(crate) fn reading(
        caller: Caller,
        end: ReadEnd,
        owner: LocalPid,
        commands: usize,
    ) -> Handle<Pipe> {
        Handle::open(caller, End::new(Fd::Read(end)), owner, commands)
    }

    /// Our end of a pipe that one command reads from.
    pub(crate) fn writing(caller: Caller, end: WriteEnd, owner: LocalPid) -> Handle<Pipe> {
        Handle::open(caller, End::new(Fd::Write(end)), owner, 1)
    }

    fn open(caller: Caller, end: End, owner: LocalPid, commands: usize) -> Handle<Pipe> {
        let state = State {
            phase: Phase::Open(end),
            owner,
            monitor: None,
            wait: None,
        };
        let pipe = Handle::new(Pipe {
            commands: AtomicUsize::new(commands),
            state: Mutex::new(state),
        });
        pipe.set_owner(caller, owner);
        pipe
    }

    /// Makes `owner` the owner. `false` when the pipe is closed.
    fn set_owner(&self, caller: Caller, owner: LocalPid) -> bool {
        let (old_monitor, alive) = {
            let mut state = self.lock();
            if !matches!(state.phase, Phase::Open(_)) {
                return false;
            }
            let new_monitor = self.monitor(caller, owner);
            let alive = new_monitor.is_some();
            state.owner = owner;
            self.wake(caller, &mut state);
            (std::mem::replace(&mut state.monitor, new_monitor), alive)
        };
        if let Some(monitor) = old_monitor {
            self.demonitor(caller, monitor);
        }
        if !alive {
            // As if it had died a moment later.
            self.close_if(caller, |state| state.owner == owner);
        }
        true
    }

    /// A command has ended. After the last, whoever waits looks again, and nobody will wait any
    /// more.
    pub(crate) fn command_ended(&self, caller: Caller) {
        if self.commands.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake(caller, &mut self.lock());
        }
    }

    fn commands_ended(&self) -> bool {
        self.commands.load(Ordering::Acquire) == 0
    }

    /// Ends a wait with a message, unless the VM has sent it.
    fn wake(&self, caller: Caller, state: &mut State) {
        if let (Phase::Open(end), Some(wait)) = (&state.phase, state.wait.take()) {
            if self.cancel(end.raw(), end.direction(), &wait) {
                wait.wake(caller);
            }
        }
    }

    /// Closes the pipe if it is open and `condition` holds.
    fn close_if(&self, caller: Caller, condition: impl FnOnce(&State) -> bool) -> bool {
        let (selected, monitor) = {
            let mut state = self.lock();
            if !matches!(state.phase, Phase::Open(_)) || !condition(&state) {
                return false;
            }
            let mut selected = None;
            state.phase = match std::mem::replace(&mut state.phase, Phase::Closed) {
                Phase::Open(end) if end.selected => {
                    selected = Some(end.raw());
                    Phase::Closing(end)
                }
                // Never selected: dropping the end closes it here and now.
                _ => Phase::Closed,
            };
            state.wait = None;
            (selected, state.monitor.take())
        };
        if let Some(fd) = selected {
            self.stop(caller, fd);
        }
        if let Some(monitor) = monitor {
            self.demonitor(caller, monitor);
        }
        true
    }

    /// Waits for the end to be ready; the process gets a message with `reference`.
    fn wait_for(&self, state: &mut State, pid: LocalPid, reference: Term<'_>) -> Result<(), Errno> {
        let Phase::Open(end) = &mut state.phase else {
            return Err(Errno::EINVAL);
        };
        let wait = Wait::new(pid, reference);
        self.select(end.raw(), end.direction(), &wait)
            .map_err(|_| Errno::EINVAL)?;
        end.selected = true;
        state.wait = Some(wait);
        Ok(())
    }
}

/// `{:ok, binary}`, `:eof`, `:again` (would block, and no reference to wait with), `:wait` (the
/// caller gets a message with the reference), `:exited` (would block, but the command has ended;
/// with `drain` the others that hold the pipe are waited for) or `{:error, reason}`.
#[rustler::nif]
fn pipe_read<'a>(
    env: Env<'a>,
    pipe: Handle<Pipe>,
    max: usize,
    reference: Term<'a>,
    drain: bool,
) -> Term<'a> {
    let mut state = pipe.lock();
    // Looked at before the read: what the command wrote before its end is then read.
    let ended = pipe.commands_ended();
    let chunk = state.used_by(env.pid()).and_then(|end| end.read(env, max));
    match chunk {
        Ok(Chunk::Data(data)) => {
            account(env, data.len());
            (atoms::ok(), data.to_term(env)).encode(env)
        }
        Ok(Chunk::Eof) => atoms::eof().encode(env),
        Ok(Chunk::WouldBlock) if !reference.is_ref() => atoms::again().encode(env),
        Ok(Chunk::WouldBlock) if ended && !drain => atoms::exited().encode(env),
        Ok(Chunk::WouldBlock) => match pipe.wait_for(&mut state, env.pid(), reference) {
            Ok(()) => atoms::wait().encode(env),
            Err(errno) => encode::error(env, errno),
        },
        Err(unusable) => unusable.encode(env),
    }
}

/// Writes of `list`, binaries as `:erlang.iolist_to_iovec/1` makes them, what one system call
/// takes, the first from `offset` on. `:ok` (all is written), `{:more, list, offset}` (go on
/// with this), `{:again, list, offset}` (go on with this, but now it would block), `{:wait, list,
/// offset}` (the same, and the caller gets a message with the reference) or `{:error, reason}`.
#[rustler::nif]
fn pipe_write<'a>(
    env: Env<'a>,
    pipe: Handle<Pipe>,
    list: Term<'a>,
    offset: usize,
    reference: Term<'a>,
) -> NifResult<Term<'a>> {
    let batch = Batch::take(list)?;
    let slices = batch.slices(offset)?;
    let mut state = pipe.lock();
    let ended = pipe.commands_ended();
    let written = state.used_by(env.pid()).and_then(|end| end.write(&slices));
    Ok(match written {
        Ok(Some(written)) => {
            account(env, written);
            let all = slices.iter().map(|slice| slice.len()).sum::<usize>();
            let (rest, next) = batch.after(offset + written);
            if written < all {
                (atoms::again(), rest, next).encode(env)
            } else if rest.is_empty_list() {
                atoms::ok().encode(env)
            } else {
                (atoms::more(), rest, next).encode(env)
            }
        }
        Ok(None) if !reference.is_ref() => (atoms::again(), list, offset).encode(env),
        // Others may hold the pipe open, but the command will not read it.
        Ok(None) if ended => encode::error(env, Errno::EPIPE),
        Ok(None) => match pipe.wait_for(&mut state, env.pid(), reference) {
            Ok(()) => (atoms::wait(), list, offset).encode(env),
            Err(errno) => encode::error(env, errno),
        },
        Err(unusable) => unusable.encode(env),
    })
}

/// Gives up the wait that `reference` stands for. `:ok`: its message will not come. `:sent`: it has
/// been sent, and if the pipe has another owner by now, who waits, that is none of our business.
#[rustler::nif]
fn pipe_cancel<'a>(env: Env<'a>, pipe: Handle<Pipe>, reference: Term<'a>) -> Term<'a> {
    let mut state = pipe.lock();
    let cancelled = match state.wait.take_if(|wait| wait.is(reference)) {
        Some(wait) => match &state.phase {
            Phase::Open(end) => pipe.cancel(end.raw(), end.direction(), &wait),
            Phase::Closing(_) | Phase::Closed => false,
        },
        None => false,
    };
    if cancelled {
        atoms::ok()
    } else {
        atoms::sent()
    }
    .encode(env)
}

/// `:ok` or `{:error, :pipe_closed_or_invalid_caller}`.
#[rustler::nif]
fn pipe_close(env: Env<'_>, pipe: Handle<Pipe>) -> Term<'_> {
    let caller = env.pid();
    if pipe.close_if(env.into(), |state| state.owner == caller) {
        atoms::ok().encode(env)
    } else {
        Unusable::NotYours.encode(env)
    }
}

/// `:ok` or `{:error, :pipe_closed_or_invalid_caller}`. Any process may do this.
#[rustler::nif]
fn pipe_set_owner(env: Env<'_>, pipe: Handle<Pipe>, owner: LocalPid) -> Term<'_> {
    if pipe.set_owner(env.into(), owner) {
        atoms::ok().encode(env)
    } else {
        Unusable::NotYours.encode(env)
    }
}
