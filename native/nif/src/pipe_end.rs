//! An open end of a pipe: how bytes move between it and Erlang terms.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use exile_os::Errno;
use exile_os::pipe::{
    DEFAULT_CAPACITY, GROWN_CAPACITY, MAX_SLICES, ReadEnd, WriteEnd, memory_limit, set_capacity,
};
use exile_os::spawn::pool;
use rustler::{Atom, Binary, Decoder, Encoder, Env, NewBinary, NifResult, OwnedBinary, Term};

use crate::ahead::{Ahead, Line};
use crate::resource::Direction;
use crate::{atoms, encode};

/// The most bytes of one read. Larger binaries get their own memory blocks, which is slower.
const READ_SIZE: usize = 64 * 1024;

/// A full read of at least this many bytes shows that the pipe is busy. Smaller reads say little.
const BUSY_READ: usize = READ_SIZE / 2;

/// How many times to look for an answer before asking the VM for a message. In µs, a look at an
/// empty pipe takes 0.2, programs that answer at once take 3 to 5, and the VM's message takes 20 to
/// 60.
const LOOKS: u32 = 64;

/// A pipe that was found full, or was emptied by full reads, this many times is busy and grows.
const BUSY: u32 = 8;

/// How many pipes of this VM may be grown at once if the system does not say how much pipe memory a
/// user may have.
const MAX_GROWN: usize = 64;

/// How many more bytes a grown pipe takes than others.
const GROWTH: usize = GROWN_CAPACITY - DEFAULT_CAPACITY;

/// A pipe younger than this gives way to commands that have yet to start. Otherwise the first of
/// many streams that begin together would occupy the machine and slow down the start of the others.
const YOUNG: Duration = Duration::from_millis(250);

/// A read of at least this many bytes belongs to a stream that moves a lot of data.
const LARGE_READ: usize = 8 * 1024;

/// The most bytes that are read ahead, unless the read before was full.
const SMALL_READ: usize = 4 * 1024;

/// A look for the end of a line reads at most this often before others have their turn.
const READS: usize = 16;

/// Moving this many bytes takes about one percent of a time slice of one millisecond.
const BYTES_PER_PERCENT: usize = 64 * 1024;

static OPEN: AtomicUsize = AtomicUsize::new(0);
static GROWN: AtomicUsize = AtomicUsize::new(0);

/// How many pipe ends are open.
pub(crate) fn open_count() -> usize {
    OPEN.load(Ordering::Acquire)
}

/// How many pipe ends may be grown: as many as fit in three quarters of the pipe memory of a user
/// without privileges. If that memory were used up, each new pipe would be a small one.
fn max_grown() -> usize {
    static MAX: LazyLock<usize> =
        LazyLock::new(|| memory_limit().map_or(MAX_GROWN, |bytes| bytes / 4 * 3 / GROWTH));
    *MAX
}

/// How many pipe ends are grown.
pub(crate) fn grown_count() -> usize {
    GROWN.load(Ordering::Acquire)
}

/// An open end, counted.
pub(crate) struct PipeEnd {
    fd: Fd,
    ahead: Ahead,
    /// The VM has selected the descriptor, and must be told before it is closed.
    pub(crate) selected: bool,
    busy: u32,
    grown: bool,
    /// The last read returned all that was asked for, so there is probably more.
    last_full: bool,
    /// The last read was a large one, and the owner has not given way since.
    rest_due: bool,
    opened: Instant,
}

pub(crate) enum Fd {
    Read(ReadEnd),
    Write(WriteEnd),
}

impl PipeEnd {
    pub(crate) fn new(fd: Fd) -> PipeEnd {
        OPEN.fetch_add(1, Ordering::AcqRel);
        PipeEnd {
            fd,
            ahead: Ahead::default(),
            selected: false,
            busy: 0,
            grown: false,
            last_full: false,
            rest_due: false,
            opened: Instant::now(),
        }
    }

    /// Whether to let others go first, at most once per read.
    pub(crate) fn gives_way(&mut self) -> bool {
        let gives_way = self.rest_due && pool::is_crowded() && self.opened.elapsed() < YOUNG;
        self.rest_due = false;
        gives_way
    }

    pub(crate) fn raw(&self) -> RawFd {
        match &self.fd {
            Fd::Read(end) => end.as_raw_fd(),
            Fd::Write(end) => end.as_raw_fd(),
        }
    }

    pub(crate) fn direction(&self) -> Direction {
        match &self.fd {
            Fd::Read(_) => Direction::Read,
            Fd::Write(_) => Direction::Write,
        }
    }

    /// Records that the pipe was full or was emptied. The pipe grows, once, when this happens
    /// often.
    fn note_busy(&mut self) {
        self.busy = self.busy.saturating_add(1);
        if self.busy != BUSY {
            return;
        }
        let room = |grown| (grown < max_grown()).then_some(grown + 1);
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
        // If the system refuses (the user's pipe memory is used up), the pipe stays as it was.
        self.grown = grown.is_ok();
        if !self.grown {
            GROWN.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::AcqRel);
        if self.grown {
            GROWN.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Why a pipe cannot be used.
pub(crate) enum Unusable {
    /// It is closed, or belongs to another process.
    NotYours,
    /// The system returned an error.
    Os(Errno),
}

impl Unusable {
    pub(crate) fn encode(self, env: Env<'_>) -> Term<'_> {
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

/// Charges the caller's time slice for moving `bytes`.
pub(crate) fn account(env: Env<'_>, bytes: usize) {
    let percent = (bytes / BYTES_PER_PERCENT).clamp(1, 100);
    rustler::schedule::consume_timeslice(env, percent as i32);
}

/// What a read asks for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// What is there, up to so many bytes.
    AtMost(usize),
    /// A line of up to so many bytes.
    Line(usize),
    /// What comes after so many bytes, without taking any.
    Beyond(usize),
}

impl<'a> Decoder<'a> for Wanted {
    fn decode(term: Term<'a>) -> NifResult<Wanted> {
        if let Ok(most) = term.decode() {
            return Ok(Wanted::AtMost(most));
        }
        let (kind, bytes): (Atom, usize) = term.decode()?;
        if kind == atoms::line() {
            Ok(Wanted::Line(bytes))
        } else if kind == atoms::beyond() {
            Ok(Wanted::Beyond(bytes))
        } else {
            Err(rustler::Error::BadArg)
        }
    }
}

/// The result of a read.
pub(crate) enum Chunk<'a> {
    Data(Binary<'a>),
    Eof,
    /// A part of a line. More of it may be there.
    Part,
    /// The line is longer than it may be. It is still there.
    LineTooLong,
}

impl PipeEnd {
    /// Like [`read`](Self::read), but tries for a while if it would block.
    pub(crate) fn look_for_answer<'a>(
        &mut self,
        env: Env<'a>,
        wanted: Wanted,
    ) -> Result<Option<Chunk<'a>>, Unusable> {
        // Answers are mostly small, so no look needs a large binary.
        self.last_full = false;
        let mut read = self.look(env, wanted);
        for _ in 1..LOOKS {
            if !matches!(read, Ok(None)) {
                break;
            }
            std::hint::spin_loop();
            read = self.look(env, wanted);
        }
        self.ahead.shrink();
        read
    }

    /// Reads what is wanted, first of all from what was read before; `None` if it would block.
    pub(crate) fn read<'a>(
        &mut self,
        env: Env<'a>,
        wanted: Wanted,
    ) -> Result<Option<Chunk<'a>>, Unusable> {
        let read = self.look(env, wanted);
        self.ahead.shrink();
        read
    }

    /// One attempt. The caller shrinks what is ahead after the last one: pipes that wait are many.
    fn look<'a>(&mut self, env: Env<'a>, wanted: Wanted) -> Result<Option<Chunk<'a>>, Unusable> {
        match wanted {
            Wanted::AtMost(max) if self.ahead.is_empty() => self.read_chunk(env, max),
            Wanted::AtMost(max) => self.take(env, max),
            Wanted::Line(most) => self.read_line(env, most),
            Wanted::Beyond(count) => self.read_beyond(env, count),
        }
    }

    /// What is left when nothing more will come: a line without a newline.
    pub(crate) fn read_last<'a>(
        &mut self,
        env: Env<'a>,
        wanted: Wanted,
    ) -> Result<Option<Chunk<'a>>, Unusable> {
        let last = match wanted {
            Wanted::Line(_) if !self.ahead.is_empty() => self.take(env, usize::MAX),
            _ => Ok(None),
        };
        self.ahead.shrink();
        last
    }

    /// Takes at most `count` bytes of what was read before.
    fn take<'a>(&mut self, env: Env<'a>, count: usize) -> Result<Option<Chunk<'a>>, Unusable> {
        let data = binary(env, self.ahead.first(count))?;
        self.ahead.drop_first(count);
        Ok(Some(Chunk::Data(data)))
    }

    /// Reads at most `max` bytes into a binary of exactly the size of the data.
    fn read_chunk<'a>(&mut self, env: Env<'a>, max: usize) -> Result<Option<Chunk<'a>>, Unusable> {
        let Fd::Read(end) = &self.fd else {
            return Err(Unusable::NotYours);
        };
        let size = max.min(READ_SIZE);
        let chunk = if self.last_full {
            read_in_place(env, end, size)?
        } else {
            read_and_copy(env, end, size)?
        };
        if let Some(Chunk::Data(data)) = &chunk {
            self.note_read(data.len(), size);
        }
        Ok(chunk)
    }

    fn read_line<'a>(&mut self, env: Env<'a>, most: usize) -> Result<Option<Chunk<'a>>, Unusable> {
        for _ in 0..READS {
            match self.ahead.line(most) {
                Line::Whole(length) => {
                    let line = binary(env, self.ahead.first(length))?;
                    self.ahead.drop_first(length + 1);
                    return Ok(Some(Chunk::Data(line)));
                }
                Line::TooLong => return Ok(Some(Chunk::LineTooLong)),
                Line::Begun => {}
            }
            match self.read_ahead(env)? {
                None => return Ok(None),
                Some(0) => {
                    let last = self.read_last(env, Wanted::Line(most))?;
                    return Ok(Some(last.unwrap_or(Chunk::Eof)));
                }
                Some(_) => {}
            }
        }
        Ok(Some(Chunk::Part))
    }

    fn read_beyond<'a>(
        &mut self,
        env: Env<'a>,
        count: usize,
    ) -> Result<Option<Chunk<'a>>, Unusable> {
        if self.ahead.len() <= count {
            match self.read_ahead(env)? {
                None => return Ok(None),
                Some(0) => return Ok(Some(Chunk::Eof)),
                Some(_) => {}
            }
        }
        let data = binary(env, self.ahead.beyond(count))?;
        Ok(Some(Chunk::Data(data)))
    }

    /// Reads once, and keeps it. Returns how much it was. The caller pays for it even if it gets nothing
    /// yet, so that a line without end does not keep a scheduler.
    fn read_ahead(&mut self, env: Env<'_>) -> Result<Option<usize>, Unusable> {
        let Fd::Read(end) = &self.fd else {
            return Err(Unusable::NotYours);
        };
        // Large blocks of memory are slower to get than most answers.
        let size = if self.last_full {
            READ_SIZE
        } else {
            SMALL_READ
        };
        self.ahead.reserve(size)?;
        let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
        let Some(data) = end.read(&mut buffer[..size])? else {
            return Ok(None);
        };
        self.ahead.keep(data);
        let count = data.len();
        account(env, count);
        self.note_read(count, size);
        Ok(Some(count))
    }

    /// Records that a read of at most `size` bytes returned `count`.
    fn note_read(&mut self, count: usize, size: usize) {
        self.last_full = count == size;
        self.rest_due = count >= LARGE_READ;
        if self.last_full && size >= BUSY_READ {
            self.note_busy();
        }
    }
}

/// For reads that will probably be full: no copy, and the unused rest of the binary is freed.
fn read_in_place<'a>(env: Env<'a>, end: &ReadEnd, size: usize) -> Result<Option<Chunk<'a>>, Errno> {
    let mut binary = OwnedBinary::new(size).ok_or(Errno::ENOMEM)?;
    match end.read_into(binary.as_mut_slice())? {
        None => Ok(None),
        Some(0) => Ok(Some(Chunk::Eof)),
        Some(count) if count == size || binary.realloc(count) => {
            Ok(Some(Chunk::Data(binary.release(env))))
        }
        Some(_) => Err(Errno::ENOMEM),
    }
}

/// For reads that will probably be short: a buffer on the stack, and a copy of the data.
fn read_and_copy<'a>(env: Env<'a>, end: &ReadEnd, size: usize) -> Result<Option<Chunk<'a>>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
    match end.read(&mut buffer[..size])? {
        None => Ok(None),
        Some([]) => Ok(Some(Chunk::Eof)),
        Some(data) => Ok(Some(Chunk::Data(binary(env, data)?))),
    }
}

/// A copy of `data`. The VM gives up when it has no memory for a small binary.
fn binary<'a>(env: Env<'a>, data: &[u8]) -> Result<Binary<'a>, Errno> {
    if data.len() > READ_SIZE {
        let mut binary = OwnedBinary::new(data.len()).ok_or(Errno::ENOMEM)?;
        binary.as_mut_slice().copy_from_slice(data);
        return Ok(binary.release(env));
    }
    let mut binary = NewBinary::new(env, data.len());
    binary.as_mut_slice().copy_from_slice(data);
    Ok(binary.into())
}

impl PipeEnd {
    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<Option<usize>, Unusable> {
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

/// The next binaries of an iovec list, and the rest of the list.
pub(crate) struct Batch<'a> {
    binaries: Vec<(Term<'a>, Binary<'a>)>,
    rest: Term<'a>,
}

impl<'a> Batch<'a> {
    /// Takes as many binaries of `list` as one system call accepts. Empty ones would use up that
    /// number, so they are left out.
    pub(crate) fn take(mut list: Term<'a>) -> NifResult<Batch<'a>> {
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

    /// The slices to write: the first binary from `offset` on, the others whole.
    pub(crate) fn slices(&self, offset: usize) -> NifResult<Vec<IoSlice<'a>>> {
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

    /// Where to continue once the first `bytes` bytes, counted from the start of the first binary,
    /// are written: the list that begins with the unfinished binary, and the offset in it.
    pub(crate) fn after(&self, mut bytes: usize) -> (Term<'a>, usize) {
        for (list, binary) in &self.binaries {
            if bytes < binary.len() {
                return (*list, bytes);
            }
            bytes -= binary.len();
        }
        (self.rest, 0)
    }
}
