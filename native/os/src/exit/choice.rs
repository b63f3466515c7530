//! Finding out where statuses come from.

#[cfg(by_clone)]
use super::probe::probe;
use super::source::{self, Source};
use crate::errno::Errno;

/// Finds out where statuses come from on this kernel and keeps the answer. With `Some(source)`
/// there is nothing to find out, nor is there on systems without pidfds. Must first be called with
/// SIGCHLD ignored for the answer to mean anything; unless that is [`Source::Pidfd`], the caller
/// sets SIGCHLD to its default. Fails where the system has no process, memory or descriptor to give
/// for finding out: nothing is kept then, so that a later call finds out.
pub fn choose(wanted: Option<Source>) -> Result<Source, Errno> {
    match wanted {
        Some(wanted) => source::keep(wanted),
        None if !source::is_chosen() => source::keep(probe()?),
        // Found before. With SIGCHLD no longer ignored the answer might now be another one.
        None => {}
    }
    Ok(source::source())
}

#[cfg(not(by_clone))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn probe() -> Result<Source, Errno> {
    Ok(Source::Portable)
}
