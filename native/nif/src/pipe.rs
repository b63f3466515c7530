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
//! * Only the owner reads, writes or closes. Any process may make another one the owner; if the old
//!   owner is waiting, it is woken.
//! * A wait ends with exactly one message: the VM's when the pipe is ready, ours when the owner
//!   changes or the processes have ended. The receiver tries again to find out what the message
//!   means.
//! * A read or write tries the system call first, and selects only if it would block.
//! * Erlang code holds a [`Grip`]. The VM holds the [`Pipe`] once it has selected the descriptor.
//!   When the processes at the other end have ended and there is no grip any more, the pipe is
//!   closed. While they run it stays open: they live as long as their owner, no matter who holds a
//!   handle.
//! * When the owner dies, the processes that must not outlive it are claimed before the pipe is
//!   closed, since closing it may end them.
//! * All system calls are made under the lock, in the states idle and waiting. The lock is not held
//!   when the VM is told to stop, since the VM may call [`Pipe::stop`] during that call.

use std::io::IoSlice;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use exile_os::Errno;
use exile_os::sync::{AtomicUsize, Mutex, MutexGuard};
use rustler::{Encoder, Env, NifResult, Term};

use crate::pipe_end::{Batch, Chunk, Fd, PipeEnd, Unusable, Wanted, account};
use crate::question::Question;
use crate::resource::{Handle, Kind, Resource};
use crate::wait::{Caller, Pid, Wait, pid};
use crate::watch::Monitor;
use crate::{atoms, encode};

/// One end of a pipe.
pub(crate) struct Pipe {
    /// How many processes at the other end have not ended yet. When none is left, other processes
    /// may still hold the pipe open.
    processes: AtomicUsize,
    question: Question,
    /// The processes that end when the owner of the pipe dies.
    dependants: Box<dyn Dependants>,
    state: Mutex<State>,
}

/// The processes that end when the owner of a pipe dies.
pub(crate) trait Dependants: Send + Sync {
    /// `pid` is dead and was once the owner of the pipe; `is_owner`: it was the owner when it died.
    /// Called before the pipe is closed, since closing it may also end a process.
    fn owner_died(&self, pid: Pid, is_owner: bool);
}

struct State {
    phase: Phase,
    owner: Pid,
    monitor: Option<Monitor>,
    wait: Option<Wait>,
    /// Erlang code may use it.
    gripped: bool,
}

/// A pipe, as Erlang code holds it.
pub(crate) struct Grip(Handle<Pipe>);

impl Resource for Grip {
    const NAME: &'static str = "Grip";

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn released(&mut self, caller: Caller) {
        self.0.let_go(caller);
    }
}

enum Phase {
    Open(PipeEnd),
    /// The VM still has the descriptor; the stop callback closes it.
    Closing(#[allow(dead_code, reason = "held to be dropped")] PipeEnd),
    Closed,
}

impl State {
    /// The end, if `caller` may use it. The caller has already received the message of its previous
    /// wait.
    fn used_by(&mut self, caller: Pid) -> Result<&mut PipeEnd, Unusable> {
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
    /// After the processes.
    const TOLD: u8 = 2;

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn stop(&self) {
        self.lock().phase = Phase::Closed;
    }

    fn down(handle: &Handle<Self>, caller: Caller, pid: Pid) {
        handle.dependants.owner_died(pid, handle.is_of(pid));
        // The monitor of a former owner may still fire: then `pid` is not the owner, and the pipe
        // stays open.
        handle.close(caller, pid);
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock. If it did, the state would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle<Pipe> {
    /// Our end of a pipe with `processes` processes at the other end, each of which reports its
    /// exit to it.
    pub(crate) fn open(
        fd: Fd,
        owner: Pid,
        processes: usize,
        question: Question,
        dependants: Box<dyn Dependants>,
    ) -> Handle<Pipe> {
        let state = State {
            phase: Phase::Open(PipeEnd::new(fd)),
            owner,
            monitor: None,
            wait: None,
            gripped: true,
        };
        Handle::new(Pipe {
            processes: AtomicUsize::new(processes),
            question,
            dependants,
            state: Mutex::new(state),
        })
    }

    /// Its only handle for Erlang code.
    pub(crate) fn grip(self) -> Handle<Grip> {
        Handle::new(Grip(self))
    }

    /// Erlang code cannot use it any more.
    fn let_go(&self, caller: Caller) {
        self.lock().gripped = false;
        self.close_if_useless(caller);
    }

    /// Closes the pipe if its processes have ended and Erlang code has dropped it. It is called
    /// after either event, so the second one closes the pipe.
    fn close_if_useless(&self, caller: Caller) {
        let owner = {
            let state = self.lock();
            (!state.gripped && self.processes_ended()).then_some(state.owner)
        };
        if let Some(owner) = owner {
            self.close(caller, owner);
        }
    }

    fn is_of(&self, pid: Pid) -> bool {
        self.lock().owner == pid
    }

    /// Makes `owner` the owner. Returns `false` if the pipe is closed.
    pub(crate) fn set_owner(&self, caller: Caller, owner: Pid) -> bool {
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
        drop(old_monitor);
        if !alive {
            // As if it had died a moment later.
            Pipe::down(self, caller, owner);
        }
        true
    }

    /// A process has ended. If it was the last one, a waiting owner is woken to try again. After
    /// that, only a read that may `outlive` the processes waits.
    pub(crate) fn process_ended(&self, caller: Caller) {
        if self.processes.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake(caller, &mut self.lock());
            self.close_if_useless(caller);
        }
    }

    fn processes_ended(&self) -> bool {
        self.processes.load(Ordering::Acquire) == 0
    }

    /// Ends a wait with a message, unless the VM has sent it.
    fn wake(&self, caller: Caller, state: &mut State) {
        if let (Phase::Open(end), Some(wait)) = (&state.phase, state.wait.take()) {
            if self.cancel(end.raw(), end.direction(), &wait) {
                wait.wake(caller);
            }
        }
    }

    /// Closes the pipe if it is open and `owner` is its owner.
    pub(crate) fn close(&self, caller: Caller, owner: Pid) -> bool {
        let (selected, monitor) = {
            let mut state = self.lock();
            if !matches!(state.phase, Phase::Open(_)) || state.owner != owner {
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
        drop(monitor);
        true
    }

    /// Moves bytes with `io`, which returns `None` if it would block.
    pub(crate) fn try_now<T>(
        &self,
        caller: Pid,
        io: impl FnOnce(&mut PipeEnd) -> Result<Option<T>, Unusable>,
    ) -> Result<Option<T>, Unusable> {
        io(self.lock().used_by(caller)?)
    }

    /// Like [`try_now`](Self::try_now), but if it would block, registers `wait`, unless the
    /// processes have ended and `outlive` is false.
    pub(crate) fn try_or_wait<T>(
        &self,
        caller: Pid,
        wait: impl FnOnce() -> Wait,
        outlive: bool,
        io: impl FnOnce(&mut PipeEnd) -> Result<Option<T>, Unusable>,
    ) -> Result<Attempt<T>, Unusable> {
        let mut state = self.lock();
        // Checked before `io`, so that what a process wrote before its exit is read first.
        let ended = self.processes_ended();
        if let Some(moved) = io(state.used_by(caller)?)? {
            return Ok(Attempt::Moved(moved));
        }
        if ended && !outlive {
            return Ok(Attempt::Ended);
        }
        self.wait_for(&mut state, wait())?;
        Ok(Attempt::Waits)
    }

    /// Whether the owner should let others go first and read a little later.
    fn gives_way(&self, caller: Pid) -> bool {
        let mut state = self.lock();
        state.used_by(caller).is_ok_and(PipeEnd::gives_way)
    }

    /// Waits until the end is ready. One message will come.
    fn wait_for(&self, state: &mut State, wait: Wait) -> Result<(), Errno> {
        let Phase::Open(end) = &mut state.phase else {
            return Err(Errno::EINVAL);
        };
        self.select(end.raw(), end.direction(), &wait)
            .map_err(|_| Errno::EINVAL)?;
        end.selected = true;
        state.wait = Some(wait);
        Ok(())
    }

    /// Cancels the wait if `is_meant` accepts it. `true`: its message will not come.
    pub(crate) fn give_up(&self, is_meant: impl FnOnce(&Wait) -> bool) -> bool {
        let mut state = self.lock();
        match (state.wait.take_if(|wait| is_meant(wait)), &state.phase) {
            (Some(wait), Phase::Open(end)) => self.cancel(end.raw(), end.direction(), &wait),
            _ => false,
        }
    }
}

/// The result of trying to move bytes.
pub(crate) enum Attempt<T> {
    Moved(T),
    /// Nothing could be moved, and the processes have ended.
    Ended,
    /// Nothing could be moved; a message will come.
    Waits,
}

/// Reads what is `wanted`: an integer (what is there, up to so many bytes), `{:line, most}` (a line of
/// up to so many bytes, without its newline) or `{:beyond, count}` (what comes after so many bytes,
/// without taking any).
///
/// Returns `{:ok, binary}`, `:eof`, `:again` (it would block), `:rest` (others should go first), `:more`
/// (a part of a line, or nothing, was read; ask again), `:line_too_long` or `{:error, reason}`.
#[rustler::nif]
fn pipe_try_read(env: Env<'_>, pipe: Handle<Grip>, wanted: Wanted) -> Term<'_> {
    if pipe.0.gives_way(pid(env)) {
        return atoms::rest().encode(env);
    }
    match pipe.0.try_now(pid(env), |end| end.read(env, wanted)) {
        Ok(Some(chunk)) => read(env, chunk),
        Ok(None) => atoms::again().encode(env),
        Err(unusable) => unusable.encode(env),
    }
}

/// Like `pipe_try_read`, but if it would block, returns `:wait` (the caller will get a message with the
/// reference) or `:exited` (the processes have ended, and what they wrote has been read).
/// With `drain` it also waits for other processes that hold the pipe, and never returns `:exited`.
#[rustler::nif]
fn pipe_read_or_wait<'a>(
    env: Env<'a>,
    pipe: Handle<Grip>,
    wanted: Wanted,
    reference: Term<'a>,
    drain: bool,
) -> Term<'a> {
    let wait = || Wait::new(pid(env), reference);
    let io = |end: &mut PipeEnd| {
        // Only a caller that would have to wait looks repeatedly.
        if pipe.0.question.take(pid(env)) {
            end.look_for_answer(env, wanted)
        } else {
            end.read(env, wanted)
        }
    };
    match pipe.0.try_or_wait(pid(env), wait, drain, io) {
        Ok(Attempt::Moved(chunk)) => read(env, chunk),
        Ok(Attempt::Ended) => match pipe.0.try_now(pid(env), |end| end.read_last(env, wanted)) {
            Ok(Some(chunk)) => read(env, chunk),
            Ok(None) => atoms::exited().encode(env),
            Err(unusable) => unusable.encode(env),
        },
        Ok(Attempt::Waits) => atoms::wait().encode(env),
        Err(unusable) => unusable.encode(env),
    }
}

fn read<'a>(env: Env<'a>, chunk: Chunk) -> Term<'a> {
    match chunk {
        Chunk::Data(data) => {
            account(env, data.len());
            (atoms::ok(), data.to_term(env)).encode(env)
        }
        Chunk::Eof => atoms::eof().encode(env),
        Chunk::Part => atoms::more().encode(env),
        Chunk::LineTooLong => atoms::line_too_long().encode(env),
    }
}

/// Writes as many binaries of `list` (as made by `:erlang.iolist_to_iovec/1`) as one system call
/// takes, the first one from `offset` on. Returns `:ok` (all is written), `{:more, list, offset}`
/// (continue with these), `{:again, list, offset}` (continue with these, but now it would block) or
/// `{:error, reason}`.
#[rustler::nif]
fn pipe_try_write<'a>(
    env: Env<'a>,
    pipe: Handle<Grip>,
    list: Term<'a>,
    offset: usize,
) -> NifResult<Term<'a>> {
    let batch = Batch::take(list)?;
    let slices = batch.slices(offset)?;
    Ok(match pipe.0.try_now(pid(env), |end| end.write(&slices)) {
        Ok(Some(count)) => written(env, &pipe, &batch, &slices, offset, count),
        Ok(None) => (atoms::again(), list, offset).encode(env),
        Err(unusable) => unusable.encode(env),
    })
}

/// Like `pipe_try_write`, but if it would block, returns `{:wait, list, offset}`, and the caller
/// gets a message with the reference.
#[rustler::nif]
fn pipe_write_or_wait<'a>(
    env: Env<'a>,
    pipe: Handle<Grip>,
    list: Term<'a>,
    offset: usize,
    reference: Term<'a>,
) -> NifResult<Term<'a>> {
    let batch = Batch::take(list)?;
    let slices = batch.slices(offset)?;
    let wait = || Wait::new(pid(env), reference);
    let io = |end: &mut PipeEnd| end.write(&slices);
    Ok(match pipe.0.try_or_wait(pid(env), wait, false, io) {
        Ok(Attempt::Moved(count)) => written(env, &pipe, &batch, &slices, offset, count),
        // Other processes may hold the pipe open, but the process will not read it.
        Ok(Attempt::Ended) => encode::error(env, Errno::EPIPE),
        Ok(Attempt::Waits) => (atoms::wait(), list, offset).encode(env),
        Err(unusable) => unusable.encode(env),
    })
}

/// The answer when `count` bytes of the slices are written: what is left to write.
fn written<'a>(
    env: Env<'a>,
    pipe: &Handle<Grip>,
    batch: &Batch<'a>,
    slices: &[IoSlice<'_>],
    offset: usize,
    count: usize,
) -> Term<'a> {
    account(env, count);
    pipe.0.question.ask(pid(env));
    let all = slices.iter().map(|slice| slice.len()).sum::<usize>();
    let (rest, next) = batch.after(offset + count);
    if count < all {
        (atoms::again(), rest, next).encode(env)
    } else if rest.is_empty_list() {
        atoms::ok().encode(env)
    } else {
        (atoms::more(), rest, next).encode(env)
    }
}

/// Cancels the wait with this `reference`, and no other. `:ok`: its message will not come. `:sent`:
/// the message has been sent.
#[rustler::nif]
fn pipe_cancel<'a>(env: Env<'a>, pipe: Handle<Grip>, reference: Term<'a>) -> Term<'a> {
    if pipe.0.give_up(|wait| wait.is(reference)) {
        atoms::ok()
    } else {
        atoms::sent()
    }
    .encode(env)
}

/// Returns `:ok` or `{:error, :pipe_closed_or_invalid_caller}`.
#[rustler::nif]
fn pipe_close(env: Env<'_>, pipe: Handle<Grip>) -> Term<'_> {
    if pipe.0.close(env.into(), pid(env)) {
        atoms::ok().encode(env)
    } else {
        Unusable::NotYours.encode(env)
    }
}

/// Returns `:ok` or `{:error, :pipe_closed_or_invalid_caller}`. Any process may call it.
#[rustler::nif]
fn pipe_set_owner(env: Env<'_>, pipe: Handle<Grip>, owner: Pid) -> Term<'_> {
    if pipe.0.set_owner(env.into(), owner) {
        atoms::ok().encode(env)
    } else {
        Unusable::NotYours.encode(env)
    }
}
