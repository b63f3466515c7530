//! A few descriptor numbers below [`LIMIT`], kept for the ends of children that are being made.
//!
//! A new process gets a copy of the descriptor table, which the program then closes descriptor by
//! descriptor: with 12,000 open that takes longer than all the rest of a spawn. So the child
//! shares the table at first, and the first thing it does is to leave it with a copy of the lowest
//! numbers alone. What it needs must be among these. Since low numbers are taken first, there are
//! none to be had later: they are reserved, with the null device on them.
//!
//! One set of numbers serves one child. It is taken from the pool before the clone and given back
//! after it, with the null device on it again: if an end of a pipe stayed there, its other end
//! would never see the end of the data. A spawn that finds no set copies the table, and so do all
//! from the moment when the kernel, or a sandbox, refuses to let a child leave the table.
//!
//! # Safety
//! Unsafe code here puts descriptors on numbers that a set owns, so that nobody else's is replaced.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::plan::Plan;
use crate::errno::{Errno, check};
use crate::pipe::above_standard;

/// The child keeps the descriptors below this number: what the smallest table of the kernel holds
/// on 64-bit systems.
pub(super) const LIMIT: RawFd = 64;

/// Where fewer descriptors than this may be open, all numbers are left to others: a table that small
/// costs little to copy.
const LEAST_LIMIT: libc::rlim_t = 512;

/// How many children can be created at once without copying the table. There are about as many
/// spawners as cores, some of which may hang. Half of the low numbers are left to others.
const SETS: usize = 8;

/// What a child may need: its three streams, and the socket of the guard.
const SET_SIZE: usize = 4;
const GUARD: usize = 3;

type Set = [OwnedFd; SET_SIZE];

struct Pool {
    null: OwnedFd,
    free: Mutex<Vec<Set>>,
}

static POOL: OnceLock<Option<Pool>> = OnceLock::new();

/// Children cannot leave a shared table here.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Reserves the numbers, once. The sooner the better: later the low ones are taken.
pub(super) fn reserve() {
    pool();
}

fn pool() -> Option<&'static Pool> {
    POOL.get_or_init(|| (descriptor_limit() >= LEAST_LIMIT).then(Pool::new)?.ok())
        .as_ref()
}

fn descriptor_limit() -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is ours, and the kernel writes into it. If it cannot, the limit stays 0.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// From now on no child shares the table.
pub(super) fn refuse() {
    REFUSED.store(true, Ordering::Release);
}

impl Pool {
    fn new() -> Result<Pool, Errno> {
        use nix::fcntl::{OFlag, open};
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let null = open(c"/dev/null", flags, nix::sys::stat::Mode::empty())?;
        let null = above_standard(null)?;
        let mut sets = Vec::new();
        sets.try_reserve_exact(SETS).map_err(|_| Errno::ENOMEM)?;
        while sets.len() < SETS {
            // An incomplete set is of no use: its numbers are closed.
            match low_set(null.as_fd()) {
                Some(set) => sets.push(set),
                None => break,
            }
        }
        Ok(Pool {
            null,
            free: Mutex::new(sets),
        })
    }
}

fn low_set(null: BorrowedFd<'_>) -> Option<Set> {
    Some([
        low_copy(null)?,
        low_copy(null)?,
        low_copy(null)?,
        low_copy(null)?,
    ])
}

fn low_copy(null: BorrowedFd<'_>) -> Option<OwnedFd> {
    // The kernel chooses the number: it never gives one that is in use.
    let copy = crate::pipe::copy_above_standard(null).ok()?;
    (copy.as_raw_fd() < LIMIT).then_some(copy)
}

/// A set in use, with the ends of one child on it.
pub(super) struct Lent {
    pool: &'static Pool,
    set: Option<Set>,
    /// Which numbers hold something other than the null device.
    put: [bool; SET_SIZE],
}

/// A set for one child; `None` if there is none, or it would be of no use.
pub(super) fn take() -> Option<Lent> {
    if REFUSED.load(Ordering::Acquire) {
        return None;
    }
    let pool = pool()?;
    let set = lock(pool).pop()?;
    Some(Lent {
        pool,
        set: Some(set),
        put: [false; SET_SIZE],
    })
}

fn lock(pool: &Pool) -> std::sync::MutexGuard<'_, Vec<Set>> {
    pool.free.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lent {
    /// The same plan, with what the child needs on the numbers of this set. Fails where the limit
    /// of descriptors was lowered below them.
    pub(super) fn lend<'a>(&mut self, plan: &Plan<'a>) -> Result<Plan<'a>, Errno> {
        Ok(Plan {
            stdin: self.put(0, plan.stdin)?,
            stdout: self.put(1, plan.stdout)?,
            stderr: self.put(2, plan.stderr)?,
            guard: self.put(GUARD, plan.guard)?,
            ..*plan
        })
    }

    fn put(&mut self, place: usize, fd: Option<RawFd>) -> Result<Option<RawFd>, Errno> {
        let (Some(fd), Some(set)) = (fd, &self.set) else {
            return Ok(None);
        };
        let number = set[place].as_raw_fd();
        duplicate(fd, number)?;
        self.put[place] = true;
        Ok(Some(number))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(set) = self.set.take() else { return };
        for (fd, put) in set.iter().zip(self.put) {
            if put && duplicate(self.pool.null.as_raw_fd(), fd.as_raw_fd()).is_err() {
                // The limit was lowered meanwhile. What must not stay there is closed with the
                // set, which is lost.
                return;
            }
        }
        // It came from there, so there is room.
        lock(self.pool).push(set);
    }
}

/// Puts a descriptor on a number that a set owns.
fn duplicate(fd: RawFd, number: RawFd) -> Result<(), Errno> {
    // SAFETY: `number` belongs to a set, of which nobody else has a copy, so what is closed there
    // is nobody's; that the set owns what is open on it stays true.
    check(unsafe { libc::dup3(fd, number, libc::O_CLOEXEC) }).map(drop)
}
