//! The spawners: threads that create processes, so that no thread of the VM waits for the system.
//!
//! A spawn takes as long as executing the program does, which on a dead network disk can be for
//! ever. Jobs are done in the order in which they came, by one spawner more than there are cores.
//! For each spawner that hangs in its job another one is started, up to a limit.
//!
//! Spawners never end, because the kernel binds a process to the *thread* that created it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::errno::Errno;
use crate::life::keeper;
use crate::thread;

/// Something that may wait for the system.
pub type Job = Box<dyn FnOnce() + Send>;

/// A job that takes longer counts as hanging. Nearly all take less than a millisecond.
const HANGS: Duration = Duration::from_millis(100);

/// How often to look whether jobs hang, while some wait.
const LOOK: Duration = Duration::from_millis(20);

/// The most spawners there may be. Each takes a thread.
const MOST: usize = 256;

/// The most spawners that are started at once. All may seem to hang only because the machine is busy.
const MOST_AT_ONCE: usize = 64;

/// Stands for a spawner that has no job.
const IDLE: u64 = u64::MAX;

struct Pool {
    jobs: Sender<Job>,
    inbox: Receiver<Job>,
    /// How many jobs are not done yet.
    pending: AtomicUsize,
    /// How many spawners there are.
    count: AtomicUsize,
    /// Since when each has been at its job, in milliseconds of [`now`], or [`IDLE`].
    spawners: Mutex<Vec<Arc<AtomicU64>>>,
    /// The keeper will soon check whether there are enough spawners.
    watched: AtomicBool,
}

static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let (jobs, inbox) = unbounded();
    Pool {
        jobs,
        inbox,
        pending: AtomicUsize::new(0),
        count: AtomicUsize::new(0),
        spawners: Mutex::new(Vec::new()),
        watched: AtomicBool::new(false),
    }
});

/// How many spawners there are while none hangs.
fn usual() -> usize {
    static USUAL: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(2, |cores| cores.get() + 1));
    *USUAL
}

/// Milliseconds since the first call.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis().try_into().unwrap_or(IDLE - 1)
}

/// Gives a job to the spawners. Fails if there is no spawner and none can be started.
pub fn submit(job: Job) -> Result<(), Errno> {
    let pool = &*POOL;
    keeper::start()?;
    if pool.count.load(Ordering::Acquire) < usual() {
        pool.start(usual())?;
    }
    let pending = pool.pending.fetch_add(1, Ordering::AcqRel) + 1;
    // The receiver lives as long as the sender.
    let _ = pool.jobs.send(job);
    if pending > pool.count.load(Ordering::Acquire) {
        pool.watch();
    }
    Ok(())
}

/// How many jobs are not done yet.
pub fn pending() -> usize {
    POOL.pending.load(Ordering::Acquire)
}

/// Whether jobs wait for a spawner.
pub fn is_crowded() -> bool {
    // This is asked for each chunk of a young pipe, and a slightly old answer does no harm.
    POOL.pending.load(Ordering::Relaxed) > POOL.count.load(Ordering::Relaxed)
}

/// Counts as a pending job until it is dropped.
struct Pending(&'static Pool);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Pool {
    fn spawners(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.spawners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that there are `wanted` spawners, or at least one.
    fn start(&'static self, wanted: usize) -> Result<(), Errno> {
        let mut spawners = self.spawners();
        while spawners.len() < wanted.min(MOST) {
            let busy = Arc::new(AtomicU64::new(IDLE));
            let own = Arc::clone(&busy);
            match thread::spawn("exile_spawner", move || self.work(&own)) {
                Ok(_) => spawners.push(busy),
                Err(errno) if spawners.is_empty() => return Err(errno),
                // Fewer will do for now.
                Err(_) => break,
            }
            self.count.store(spawners.len(), Ordering::Release);
        }
        Ok(())
    }

    fn work(&'static self, busy: &AtomicU64) {
        for job in &self.inbox {
            let _pending = Pending(self);
            busy.store(now(), Ordering::Release);
            // The panic hook reports a panic. The caller gets no answer.
            let _ = catch_unwind(AssertUnwindSafe(job));
            busy.store(IDLE, Ordering::Release);
        }
    }

    /// Makes the keeper check, now and as long as jobs wait, whether there are enough spawners.
    fn watch(&'static self) {
        if !self.watched.swap(true, Ordering::AcqRel) {
            self.look_at(Instant::now());
        }
    }

    fn look_at(&'static self, time: Instant) {
        if keeper::at(time, Box::new(|| self.look())).is_err() {
            self.watched.store(false, Ordering::Release);
        }
    }

    fn look(&'static self) {
        let now = now();
        let hangs = |busy: &&Arc<AtomicU64>| {
            let since = busy.load(Ordering::Acquire);
            since.saturating_add(HANGS.as_millis() as u64) <= now
        };
        let (hanging, count) = {
            let spawners = self.spawners();
            (spawners.iter().filter(hangs).count(), spawners.len())
        };
        // The jobs that wait may hang as well. If all spawners hang, expect that of all these jobs;
        // if some hang, of as many again.
        let likely = if hanging == count {
            MOST_AT_ONCE
        } else {
            hanging
        };
        let wanted = usual().max(likely.min(self.inbox.len())) + hanging;
        // If no thread can be created, the jobs go on waiting for a spawner that hangs.
        let _ = self.start(wanted);
        // Cleared first. A job that comes after this sets it again; a job that came before is seen
        // below.
        self.watched.swap(false, Ordering::AcqRel);
        if !self.inbox.is_empty() && !self.watched.swap(true, Ordering::AcqRel) {
            self.look_at(Instant::now() + LOOK);
        }
    }
}
