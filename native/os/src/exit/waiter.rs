//! The thread that learns of the ends of children on a Linux without pidfds: it waits for any
//! zombie, and has the status of ours fetched. The zombies of strangers are left to the code that
//! waits for them, or to the sweep.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::zombies::{self, WAITER};
use crate::errno::Errno;
use crate::kernel::number;
use crate::thread;

/// How often to look at each of ours while the zombie of a stranger is there, which is what the
/// kernel shows as long as it is not buried.
const STRANGER_PAUSE: Duration = Duration::from_millis(10);

/// How often to look at ours when they are gone and somebody else has fetched their statuses.
const GONE_PAUSE: Duration = Duration::from_millis(100);

static LAUNCHING: Mutex<()> = Mutex::new(());

/// Starts the thread, unless it runs already.
pub(super) fn start() -> Result<(), Errno> {
    if WAITER.get().is_some() {
        return Ok(());
    }
    // One at a time, and a failure is not kept: later there may be threads.
    let _launching = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
    if WAITER.get().is_none() {
        let thread = thread::spawn("exile_waiter", run)?;
        WAITER.get_or_init(|| thread);
    }
    Ok(())
}

fn run() {
    loop {
        match number::next_zombie() {
            Ok(Some(pid)) => {
                if !zombies::look_at(pid) {
                    std::thread::sleep(STRANGER_PAUSE);
                    zombies::look_at_all();
                }
            }
            // No children at all.
            _ if zombies::look_at_all() == 0 => std::thread::park(),
            _ => std::thread::sleep(GONE_PAUSE),
        }
    }
}
