//! Threads of our own.

use std::thread::{Builder, Thread};

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::errno::Errno;

/// Starts a thread that takes no signals: they are the business of the VM.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<Thread, Errno> {
    // The thread inherits the mask.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = Builder::new().name(name.to_owned()).spawn(run);
    before.thread_set_mask()?;
    match started {
        Ok(handle) => Ok(handle.thread().clone()),
        Err(error) => Err(Errno::from_io(error)),
    }
}
