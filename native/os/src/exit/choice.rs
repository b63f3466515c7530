//! Chooses where exit statuses come from.

#[cfg(by_clone)]
use super::probe::probe;
use super::source::{self, Source};
use crate::errno::Errno;

/// Finds out where exit statuses come from on this kernel and keeps the answer. With
/// `Some(source)`, or on a system without pidfds, nothing is tried out. The first call must be made
/// with SIGCHLD ignored, or the answer means nothing. Unless the answer is [`Source::Pidfd`], the
/// caller then sets SIGCHLD to its default. Fails if the system has no process, memory or
/// descriptor to spare for the probe; nothing is kept then, so that a later call probes again.
pub fn choose(wanted: Option<Source>) -> Result<Source, Errno> {
    match wanted {
        Some(wanted) => source::keep(wanted),
        None if !source::is_chosen() => source::keep(probe()?),
        // Chosen before. SIGCHLD may no longer be ignored, so probing now might give another
        // answer.
        None => {}
    }
    Ok(source::source())
}

#[cfg(not(by_clone))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn probe() -> Result<Source, Errno> {
    Ok(Source::Portable)
}
