//! The keeper: the thread that sees exits and runs teardowns, so that no other thread has to wait.
//!
//! It sleeps until an exit fd becomes readable, something is due, or another thread wakes it. Each
//! of these costs the same however many processes there are. With nothing to do it sleeps forever,
//! except where foreign zombies must be swept (see [`exit`]).
//!
//! Its state survives a panic: the thread goes on and looks at every process again.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::agenda::Agenda;
use super::registry::{self, Key};
use crate::errno::Errno;
use crate::exit::{self, ExitFd, Source};
use crate::kernel::Poller;
use crate::pipe::{ReadEnd, WriteEnd, pair};
use crate::thread;

/// How often foreign zombies are reaped where SIGCHLD cannot be ignored.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// How long to sleep when the poller cannot wait, for lack of memory.
const REST: Duration = Duration::from_millis(1);

/// The key of the waker. No life has it.
const WAKER: Key = Key::MAX;

/// A function to run on the keeper's thread. It must not block.
pub type Errand = Box<dyn FnOnce() + Send>;

/// A request to the keeper.
enum Request {
    /// Look at a life.
    Attend(Key),
    /// Run a function at a given time.
    At(Instant, Errand),
    /// Run a function when no teardown is under way.
    WhenIdle(Errand),
}

struct Keeper {
    requests: Sender<Request>,
    inbox: Receiver<Request>,
    poller: Poller,
    waker: WriteEnd,
    sleeper: ReadEnd,
    /// The keeper was woken and has not looked yet.
    woken: AtomicBool,
    work: Mutex<Work>,
}

/// The work of the keeper. Only its own thread takes the lock.
#[derive(Default)]
struct Work {
    agenda: Agenda,
    errands: HashMap<Key, Errand>,
    last_errand: u64,
    when_idle: VecDeque<Errand>,
    last_sweep: Option<Instant>,
}

static KEEPER: OnceLock<Keeper> = OnceLock::new();
static LAUNCHING: Mutex<()> = Mutex::new(());
/// Whether the thread runs.
static RUNS: AtomicBool = AtomicBool::new(false);

/// Starts the thread, unless it runs already.
pub fn start() -> Result<(), Errno> {
    keeper().map(drop)
}

fn keeper() -> Result<&'static Keeper, Errno> {
    match KEEPER.get() {
        Some(keeper) if RUNS.load(Ordering::Acquire) => Ok(keeper),
        _ => launch(),
    }
}

fn launch() -> Result<&'static Keeper, Errno> {
    // One thread at a time. A failure is not cached: descriptors and threads may be available
    // later.
    let _launching = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let keeper = match KEEPER.get() {
        Some(keeper) => keeper,
        None => {
            let keeper = Keeper::new()?;
            KEEPER.get_or_init(|| keeper)
        }
    };
    if !RUNS.load(Ordering::Acquire) {
        thread::spawn("exile_keeper", || keeper.run_for_ever())?;
        RUNS.store(true, Ordering::Release);
    }
    Ok(keeper)
}

/// Asks the keeper to attend to a life when its exit fd becomes readable.
pub(crate) fn watch(key: Key, exit_fd: &ExitFd) -> Result<(), Errno> {
    let keeper = keeper()?;
    keeper.poller.add(key, exit_fd.as_fd())?;
    if Poller::NEEDS_WAKER {
        keeper.wake();
    }
    Ok(())
}

/// Asks the keeper to attend to a life now.
pub(crate) fn attend(key: Key) -> Result<(), Errno> {
    keeper()?.ask(Request::Attend(key));
    Ok(())
}

/// Asks the keeper to run a function at the given time.
pub fn at(time: Instant, errand: Errand) -> Result<(), Errno> {
    keeper()?.ask(Request::At(time, errand));
    Ok(())
}

/// Asks the keeper to run a function as soon as no teardown is under way.
pub fn when_idle(errand: Errand) -> Result<(), Errno> {
    keeper()?.ask(Request::WhenIdle(errand));
    Ok(())
}

impl Keeper {
    fn new() -> Result<Keeper, Errno> {
        let (sleeper, waker) = pair()?;
        let (sleeper, waker) = (ReadEnd::new(sleeper)?, WriteEnd::new(waker)?);
        let poller = Poller::new()?;
        poller.add_waker(WAKER, &sleeper)?;
        let (requests, inbox) = unbounded();
        Ok(Keeper {
            requests,
            inbox,
            poller,
            waker,
            sleeper,
            woken: AtomicBool::new(false),
            work: Mutex::new(Work::default()),
        })
    }

    fn ask(&self, request: Request) {
        // This cannot fail: the receiver lives as long as the sender.
        let _ = self.requests.send(request);
        self.wake();
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // It does not matter if the pipe is full: then it is readable already.
            let _ = self.waker.write(&[IoSlice::new(&[1])]);
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_for_ever(&self) {
        loop {
            // The panic has been reported. Every life is looked at again.
            let _ = catch_unwind(AssertUnwindSafe(|| self.run()));
            for key in registry::keys() {
                let _ = self.requests.send(Request::Attend(key));
            }
        }
    }

    fn run(&self) {
        loop {
            for request in self.inbox.try_iter() {
                self.take(request);
            }
            self.do_what_is_due();
            // Rounded up: waking a little early would mean waking many times.
            let milliseconds = self.time_left().map_or(-1, |left| {
                let left = left + Duration::from_micros(999);
                left.as_millis().try_into().unwrap_or(i32::MAX)
            });
            let readable = match self.poller.wait(milliseconds) {
                Ok(readable) => readable,
                Err(Errno::EINTR) => Vec::new(),
                Err(_) => {
                    std::thread::sleep(REST);
                    // Exits are not announced meanwhile, so look at every life.
                    for key in registry::keys() {
                        self.look(key, false);
                    }
                    Vec::new()
                }
            };
            for key in readable {
                if key == WAKER {
                    // The pipe is read before `woken` is cleared. In the other order, a byte
                    // written between the two steps would be read with the rest while `woken` stays
                    // set, and nobody would write another one. A request that finds `woken` still
                    // set is already in the queue, which is looked at before the next wait.
                    let _ = self.sleeper.read_into(&mut [0; 64]);
                    self.woken.swap(false, Ordering::AcqRel);
                } else {
                    self.look(key, true);
                }
            }
        }
    }

    fn take(&self, request: Request) {
        match request {
            Request::Attend(key) => self.look(key, false),
            Request::WhenIdle(errand) => self.work().when_idle.push_back(errand),
            Request::At(time, errand) => {
                let mut work = self.work();
                work.last_errand += 1;
                // Errand keys count down from the waker's; keys of lives count up from 0.
                let key = WAKER - work.last_errand;
                work.errands.insert(key, errand);
                work.agenda.set(key, Some(time));
            }
        }
    }

    fn do_what_is_due(&self) {
        let now = Instant::now();
        loop {
            let (key, errand) = {
                let mut work = self.work();
                let Some(key) = work.agenda.take(now) else {
                    break;
                };
                (key, work.errands.remove(&key))
            };
            match errand {
                Some(errand) => errand(),
                None => self.look(key, false),
            }
        }
        if exit::source() != Source::Pidfd && self.is_time_to_sweep(now) {
            exit::sweep();
        }
        while registry::under_way() == 0 {
            // One by one, so that a panic in one leaves the others queued.
            let Some(errand) = self.work().when_idle.pop_front() else {
                break;
            };
            errand();
        }
    }

    fn is_time_to_sweep(&self, now: Instant) -> bool {
        let mut work = self.work();
        let last = *work.last_sweep.get_or_insert(now);
        let due = now.duration_since(last) >= SWEEP_PERIOD;
        if due {
            work.last_sweep = Some(now);
        }
        due
    }

    /// The time until something is due.
    fn time_left(&self) -> Option<Duration> {
        let mut work = self.work();
        let sweep = (exit::source() != Source::Pidfd)
            .then(|| work.last_sweep.map(|last| last + SWEEP_PERIOD))
            .flatten();
        let due = work.agenda.first().into_iter().chain(sweep).min();
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Looks at a life, does what is due, and records when to look again.
    fn look(&self, key: Key, readable: bool) {
        let unwatch = || self.poller.remove(key);
        let at = registry::look(key, readable, Instant::now(), unwatch);
        self.work().agenda.set(key, at);
    }
}
