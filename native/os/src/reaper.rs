//! The thread that runs teardowns, so that no Erlang process, and no thread of the VM, has to
//! wait for a command to end.
//!
//! It sleeps until a new teardown comes, a command under teardown ends, or a signal is due: the
//! descriptors of ends and a pipe in one `poll`, the next due time as its timeout. With nothing to
//! do it sleeps without end, except where zombies of strangers must be swept (see [`exit`]).
//!
//! # Safety
//! Unsafe code here polls descriptors that `Arc`s keep open.
#![allow(unsafe_code)]

use std::io::IoSlice;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::child::Child;
use crate::errno::{Errno, check};
use crate::exit::{self, EndFd, Source};
use crate::pipe::{ReadEnd, WriteEnd, pair};
use crate::signal::Signal;
use crate::teardown::{Next, Progress, Target, Teardown};
use crate::thread;

/// How often zombies of strangers are buried where SIGCHLD cannot be ignored.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// A pidfd may become readable a little before the status is there: look again after this.
const STATUS_DELAY: Duration = Duration::from_millis(1);

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// How many teardowns are under way.
pub fn under_way() -> usize {
    UNDER_WAY.load(Ordering::Acquire)
}

/// Called on the reaper's thread when the command of a teardown has ended.
pub type OnEnd = Box<dyn FnOnce() + Send>;

/// A teardown under way.
pub(crate) struct Job {
    command: Leader,
    progress: Progress,
    next: Next,
    /// Taken when the command was seen to have ended.
    on_end: Option<OnEnd>,
    /// Dropped last: a teardown that is not counted holds nothing open.
    _counted: Counted,
}

/// One of [`UNDER_WAY`] while it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::AcqRel);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A command as its teardown sees it. The descriptor stays open for the group after the command
/// has ended; there is none if it was closed before, the command having ended.
struct Leader {
    child: Arc<Child>,
    end: Option<Arc<EndFd>>,
}

impl Target for Leader {
    fn has_ended(&self) -> bool {
        self.child.try_status().is_some()
    }

    fn signal_group(&self, signal: Signal) -> bool {
        let Some(end) = &self.end else {
            return false;
        };
        self.child.signal_group(end, signal).is_ok()
    }
}

/// What the thread is asked.
enum Request {
    Terminate(Job),
    WhenIdle(Box<dyn FnOnce() + Send>),
}

struct Reaper {
    requests: Sender<Request>,
    bell: WriteEnd,
}

static REAPER: OnceLock<Reaper> = OnceLock::new();
static LAUNCHING: Mutex<()> = Mutex::new(());

/// Starts the thread, unless it runs already.
pub fn start() -> Result<(), Errno> {
    reaper().map(drop)
}

fn reaper() -> Result<&'static Reaper, Errno> {
    if let Some(reaper) = REAPER.get() {
        return Ok(reaper);
    }
    // One at a time, and a failure is not kept: later there may be descriptors and threads.
    let _launching = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
    match REAPER.get() {
        Some(reaper) => Ok(reaper),
        None => {
            let reaper = launch()?;
            Ok(REAPER.get_or_init(|| reaper))
        }
    }
}

fn launch() -> Result<Reaper, Errno> {
    let (bell, button) = pair()?;
    let (bell, button) = (ReadEnd::new(bell)?, WriteEnd::new(button)?);
    let (requests, inbox) = unbounded();
    thread::spawn("exile_reaper", move || run(&inbox, &bell))?;
    Ok(Reaper {
        requests,
        bell: button,
    })
}

/// Ends `child` and its group by `teardown`. Returns at once; `on_end` is called when the
/// program has ended, also when it had before.
pub fn terminate(child: &Arc<Child>, teardown: Teardown, on_end: OnEnd) -> Result<(), Errno> {
    let reaper = reaper()?;
    let job = Job::new(child, teardown, on_end, Instant::now());
    reaper.ask(Request::Terminate(job));
    Ok(())
}

/// Calls `then` on the reaper's thread as soon as no teardown is under way.
pub fn when_idle(then: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
    reaper()?.ask(Request::WhenIdle(then));
    Ok(())
}

impl Reaper {
    fn ask(&self, request: Request) {
        // The receiver lives as long as the thread, which never ends.
        let _ = self.requests.send(request);
        // A pipe that is full has rung.
        let _ = self.bell.write(&[IoSlice::new(&[1])]);
    }
}

fn run(inbox: &Receiver<Request>, bell: &ReadEnd) {
    let mut jobs: Vec<Job> = Vec::new();
    let mut when_idle = Vec::new();
    let mut last_sweep = Instant::now();
    loop {
        for request in inbox.try_iter() {
            match request {
                Request::Terminate(job) => jobs.push(job),
                Request::WhenIdle(then) => when_idle.push(then),
            }
        }
        let now = Instant::now();
        jobs.retain_mut(|job| !job.advance(now));
        if exit::source() != Source::Pidfd && now.duration_since(last_sweep) >= SWEEP_PERIOD {
            exit::sweep();
            last_sweep = now;
        }
        if jobs.is_empty() {
            when_idle.drain(..).for_each(|then| then());
        }
        sleep(&jobs, bell);
    }
}

impl Job {
    pub(crate) fn new(child: &Arc<Child>, teardown: Teardown, on_end: OnEnd, now: Instant) -> Job {
        Job {
            command: Leader {
                child: Arc::clone(child),
                end: child.end(),
            },
            progress: Progress::new(teardown, now),
            next: Next::At(now),
            on_end: Some(on_end),
            _counted: Counted::new(),
        }
    }

    /// Does what is due; `true` when the job is done.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        self.next = self.progress.advance(&self.command, now);
        // Looked at last: others may learn the status at any moment, also between two looks
        // here, and a job that is done has told.
        if self.command.has_ended() {
            if let Some(on_end) = self.on_end.take() {
                on_end();
                // It may have ended only since it was advanced.
                self.next = self.progress.advance(&self.command, now);
            }
        }
        self.next == Next::Done
    }

    /// The descriptor to wait for; `None` once the command was seen to have ended.
    pub(crate) fn awaited(&self) -> Option<&EndFd> {
        let end = self.command.end.as_deref()?;
        self.on_end.is_some().then_some(end)
    }
}

/// Sleeps until the bell rings, a command ends or something is due.
fn sleep(jobs: &[Job], bell: &ReadEnd) {
    let mut due = (exit::source() != Source::Pidfd).then(|| Instant::now() + SWEEP_PERIOD);
    let mut fds = vec![readable(bell.as_raw_fd())];
    for job in jobs {
        let mut at = match job.next {
            Next::At(at) => Some(at),
            Next::AtEnd | Next::Done => None,
        };
        // By what `advance` saw: an end that came since then is news, and must not be missed
        // because somebody else has learned of it by now.
        if let Some(end) = job.awaited() {
            if end.is_readable() {
                at = Some(Instant::now() + STATUS_DELAY);
            } else {
                fds.push(readable(end.as_raw_fd()));
            }
        }
        due = due.into_iter().chain(at).min();
    }
    let timeout = due.map_or(-1, |due| {
        // Rounded up: waking a little early would mean waking many times.
        let left = due.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        left.as_millis().try_into().unwrap_or(libc::c_int::MAX)
    });
    let count = fds.len() as libc::nfds_t;
    // SAFETY: the array holds `count` entries; every descriptor is kept open by its job or by
    // the thread. Whatever poll returns, the caller looks at everything again.
    let polled = check(unsafe { libc::poll(fds.as_mut_ptr(), count, timeout) });
    if polled.is_err_and(|errno| errno != Errno::EINTR) {
        // No memory, or the limit of descriptors was lowered below what is polled.
        std::thread::sleep(STATUS_DELAY);
    }
    // More rings than that only make another round.
    let mut rings = [0; 64];
    let _ = bell.read_into(&mut rings);
}

fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}
