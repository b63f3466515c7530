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

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use exile_os::Errno;
use exile_os::pipe::{
    DEFAULT_CAPACITY, GROWN_CAPACITY, MAX_SLICES, ReadEnd, WriteEnd, set_capacity,
};
use rustler::types::local_pid::LocalPid;
use rustler::{Binary, Encoder, Env, NewBinary, NifResult, OwnedBinary, Term};

use crate::resource::{Caller, Direction, Handle, Kind, Monitor, Resource, Wait};
use crate::{atoms, encode};

/// The most bytes of one read. Larger binaries get memory blocks of their own, which is slower.
const READ_SIZE: usize = 64 * 1024;

/// A pipe that was full, or emptied in full, this often is a busy one and grows.
const BUSY: u32 = 8;

/// How many pipes of this VM may be grown at once: pipe memory is limited for each user.
const MAX_GROWN: usize = 64;

/// Bytes that take about one percent of a time slice of a millisecond to move.
const BYTES_PER_PERCENT: usize = 64 * 1024;

static OPEN: AtomicUsize = AtomicUsize::new(0);
static GROWN: AtomicUsize = AtomicUsize::new(0);

/// How many pipe ends are open.
pub(crate) fn open_count() -> usize {
    OPEN.load(Ordering::Acquire)
}

/// How many of them have grown.
pub(crate) fn grown_count() -> usize {
    GROWN.load(Ordering::Acquire)
}

/// One end of a pipe, as Erlang code holds it.
pub(crate) struct Pipe {
    /// The command on the other side has ended, though others may hold the pipe open.
    command_ended: AtomicBool,
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

/// An open end, counted.
struct End {
    fd: Fd,
    /// The VM has been told of the descriptor and must be told when it goes.
    selected: bool,
    busy: u32,
    grown: bool,
    /// The last read returned all that was asked for, so more is probably there.
    last_full: bool,
}

enum Fd {
    Read(ReadEnd),
    Write(WriteEnd),
}

impl End {
    fn new(fd: Fd) -> End {
        OPEN.fetch_add(1, Ordering::AcqRel);
        End {
            fd,
            selected: false,
            busy: 0,
            grown: false,
            last_full: false,
        }
    }

    fn raw(&self) -> RawFd {
        match &self.fd {
            Fd::Read(end) => end.as_raw_fd(),
            Fd::Write(end) => end.as_raw_fd(),
        }
    }

    fn direction(&self) -> Direction {
        match &self.fd {
            Fd::Read(_) => Direction::Read,
            Fd::Write(_) => Direction::Write,
        }
    }

    /// Notes that the pipe was filled or emptied, and lets one that often is grow, once.
    fn note_busy(&mut self) {
        self.busy = self.busy.saturating_add(1);
        if self.busy != BUSY {
            return;
        }
        let room = |grown| (grown < MAX_GROWN).then_some(grown + 1);
        if GROWN
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .is_err()
        {
            return;
        }
        let grown = match &self.fd {
            Fd::Read(end) => set_capacity(end, GROWN_CAPACITY),
            Fd::Write(end) => set_capacity(end, GROWN_CAPACITY),
        };
        // A refusal (the user's pipe memory is used up) leaves the pipe as it was.
        self.grown = grown.is_ok();
        if !self.grown {
            GROWN.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn read_size(&self) -> usize {
        if self.grown {
            READ_SIZE
        } else {
            READ_SIZE.min(DEFAULT_CAPACITY)
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::AcqRel);
        if self.grown {
            GROWN.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Why a pipe cannot be used.
enum Unusable {
    /// It is closed, or somebody else's.
    NotYours,
    /// The system said so.
    Os(Errno),
}

impl Unusable {
    fn encode<'a>(self, env: Env<'a>) -> Term<'a> {
        match self {
            Unusable::NotYours => {
                (atoms::error(), atoms::pipe_closed_or_invalid_caller()).encode(env)
            }
            Unusable::Os(errno) => encode::error(env, errno),
        }
    }
}

impl From<Errno> for Unusable {
    fn from(errno: Errno) -> Self {
        Unusable::Os(errno)
    }
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
    pub(crate) fn reading(caller: Caller, end: ReadEnd, owner: LocalPid) -> Handle<Pipe> {
        Handle::open(caller, End::new(Fd::Read(end)), owner)
    }

    pub(crate) fn writing(caller: Caller, end: WriteEnd, owner: LocalPid) -> Handle<Pipe> {
        Handle::open(caller, End::new(Fd::Write(end)), owner)
    }

    fn open(caller: Caller, end: End, owner: LocalPid) -> Handle<Pipe> {
        let state = State {
            phase: Phase::Open(end),
            owner,
            monitor: None,
            wait: None,
        };
        let pipe = Handle::new(Pipe {
            command_ended: AtomicBool::new(false),
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

    /// The command has ended: whoever waits looks again, and nobody will wait any more.
    pub(crate) fn command_ended(&self, caller: Caller) {
        self.command_ended.store(true, Ordering::Release);
        self.wake(caller, &mut self.lock());
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

/// Takes what `bytes` moved cost from the caller's time slice.
fn account(env: Env<'_>, bytes: usize) {
    let percent = (bytes / BYTES_PER_PERCENT).clamp(1, 100);
    rustler::schedule::consume_timeslice(env, percent as i32);
}

/// What a read found.
enum Chunk<'a> {
    Data(Binary<'a>),
    Eof,
    WouldBlock,
}

impl End {
    /// Reads at most `max` bytes into a binary of exactly the size of what was there.
    fn read<'a>(&mut self, env: Env<'a>, max: usize) -> Result<Chunk<'a>, Unusable> {
        let Fd::Read(end) = &self.fd else {
            return Err(Unusable::NotYours);
        };
        let size = max.min(self.read_size());
        let chunk = if self.last_full {
            read_in_place(env, end, size)?
        } else {
            read_and_copy(env, end, size)?
        };
        if let Chunk::Data(data) = &chunk {
            self.last_full = data.len() == size;
            if self.last_full && size == self.read_size() {
                self.note_busy();
            }
        }
        Ok(chunk)
    }
}

/// For reads that are probably full: no copy, and the rest of the binary is given back.
fn read_in_place<'a>(env: Env<'a>, end: &ReadEnd, size: usize) -> Result<Chunk<'a>, Errno> {
    let mut binary = OwnedBinary::new(size).ok_or(Errno::ENOMEM)?;
    match end.read_into(binary.as_mut_slice())? {
        None => Ok(Chunk::WouldBlock),
        Some(0) => Ok(Chunk::Eof),
        Some(count) if count == size || binary.realloc(count) => {
            Ok(Chunk::Data(binary.release(env)))
        }
        Some(_) => Err(Errno::ENOMEM),
    }
}

/// For reads that are probably short: a buffer on the stack, and a copy of what came.
fn read_and_copy<'a>(env: Env<'a>, end: &ReadEnd, size: usize) -> Result<Chunk<'a>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
    match end.read(&mut buffer[..size])? {
        None => Ok(Chunk::WouldBlock),
        Some([]) => Ok(Chunk::Eof),
        Some(data) => {
            let mut binary = NewBinary::new(env, data.len());
            binary.as_mut_slice().copy_from_slice(data);
            Ok(Chunk::Data(binary.into()))
        }
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
    let ended = pipe.command_ended.load(Ordering::Acquire);
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

/// The next binaries of an iovec list, and where the list goes on.
struct Batch<'a> {
    binaries: Vec<(Term<'a>, Binary<'a>)>,
    rest: Term<'a>,
}

impl<'a> Batch<'a> {
    /// As many of `list` as one system call takes. Empty ones, which would count, are left out.
    fn take(mut list: Term<'a>) -> NifResult<Batch<'a>> {
        let mut binaries = Vec::new();
        while binaries.len() < MAX_SLICES && !list.is_empty_list() {
            let (head, tail) = list.list_get_cell()?;
            let binary: Binary<'a> = head.decode()?;
            if !binary.is_empty() {
                binaries.push((list, binary));
            }
            list = tail;
        }
        Ok(Batch {
            binaries,
            rest: list,
        })
    }

    /// What to write: the first binary from `offset` on, the others whole.
    fn slices(&self, offset: usize) -> NifResult<Vec<IoSlice<'a>>> {
        let mut slices = Vec::with_capacity(self.binaries.len());
        let mut offset = offset;
        for (_, binary) in &self.binaries {
            let slice = binary
                .as_slice()
                .get(offset..)
                .ok_or(rustler::Error::BadArg)?;
            slices.push(IoSlice::new(slice));
            offset = 0;
        }
        Ok(slices)
    }

    /// Where to go on when the first `bytes` bytes, counted from the start of the first binary,
    /// are written: the list that begins with an unfinished binary, and the offset in it.
    fn after(&self, mut bytes: usize) -> (Term<'a>, usize) {
        for (list, binary) in &self.binaries {
            if bytes < binary.len() {
                return (*list, bytes);
            }
            bytes -= binary.len();
        }
        (self.rest, 0)
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
    let ended = pipe.command_ended.load(Ordering::Acquire);
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

impl End {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<Option<usize>, Unusable> {
        let Fd::Write(end) = &self.fd else {
            return Err(Unusable::NotYours);
        };
        if slices.is_empty() {
            return Ok(Some(0));
        }
        let written = end.write(slices)?;
        if written.is_none() {
            self.note_busy();
        }
        Ok(written)
    }
}

/// Gives up a wait. `:ok`: its message will not come. `:sent`: it has been sent.
#[rustler::nif]
fn pipe_cancel<'a>(env: Env<'a>, pipe: Handle<Pipe>, reference: Term<'a>) -> Term<'a> {
    let mut state = pipe.lock();
    let cancelled = match (&state.phase, &state.wait) {
        (Phase::Open(end), Some(wait)) if wait.is(reference) => {
            pipe.cancel(end.raw(), end.direction(), wait)
        }
        _ => false,
    };
    state.wait = None;
    if cancelled {
        atoms::ok()
    } else {
        atoms::sent()
    }
    .encode(env)
}

/// `:ok` or `{:error, :pipe_closed_or_invalid_caller}`.
#[rustler::nif]
fn pipe_close<'a>(env: Env<'a>, pipe: Handle<Pipe>) -> Term<'a> {
    let caller = env.pid();
    if pipe.close_if(env.into(), |state| state.owner == caller) {
        atoms::ok().encode(env)
    } else {
        Unusable::NotYours.encode(env)
    }
}

/// `:ok` or `{:error, :pipe_closed_or_invalid_caller}`. Any process may do this.
#[rustler::nif]
fn pipe_set_owner<'a>(env: Env<'a>, pipe: Handle<Pipe>, owner: LocalPid) -> Term<'a> {
    if pipe.set_owner(env.into(), owner) {
        atoms::ok().encode(env)
    } else {
        Unusable::NotYours.encode(env)
    }
}
