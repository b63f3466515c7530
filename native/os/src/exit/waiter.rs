//! The thread that learns of exits on a Linux without pidfds. It waits for any zombie, and fetches
//! the status if the zombie is one of Exile's children. Foreign zombies are left to the code that
//! waits for them, or to the sweep.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::zombies::{self, WAITER};
use crate::errno::Errno;
use crate::kernel::number;
use crate::thread;

/// How often to look at all of our children while there is a foreign zombie: until it is reaped,
/// the kernel reports no other.
const STRANGER_PAUSE: Duration = Duration::from_millis(10);

/// How often to look at our children when they are gone and their statuses were fetched elsewhere.
const GONE_PAUSE: Duration = Duration::from_millis(100);

static LAUNCHING: Mutex<()> = Mutex::new(());

/// Starts the thread, unless it runs already.
pub(super) fn start() -> Result<(), Errno> {
    if WAITER.get().is_some() {
        return Ok(());
    }
    // One thread at a time. A failure is not cached: threads may be available later.
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
            // There are no children at all.
            _ if zombies::look_at_all() == 0 => std::thread::park(),
            _ => std::thread::sleep(GONE_PAUSE),
        }
    }
}
