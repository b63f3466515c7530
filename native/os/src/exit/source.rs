//! Where exit statuses come from.

use std::sync::atomic::{AtomicU8, Ordering};

/// Where exit statuses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The pidfd, even after the kernel reaped the child.
    Pidfd,
    /// `waitid` on a pidfd; children are zombies until then.
    Wait,
    /// `waitpid`; children are zombies until then, and identified only by their pid.
    Portable,
}

/// Whether processes can be spawned with a pidfd.
const HAS_PIDFDS: bool = cfg!(by_clone);

const UNCHOSEN: u8 = 0;
const PIDFD: u8 = 1;
const WAIT: u8 = 2;
const PORTABLE: u8 = 3;
static SOURCE: AtomicU8 = AtomicU8::new(UNCHOSEN);

/// The source in use. Before one is chosen, the first that may work.
pub fn source() -> Source {
    if !HAS_PIDFDS {
        return Source::Portable;
    }
    match SOURCE.load(Ordering::Acquire) {
        WAIT => Source::Wait,
        PORTABLE => Source::Portable,
        _ => Source::Pidfd,
    }
}

/// Whether a source was chosen.
pub(super) fn is_chosen() -> bool {
    SOURCE.load(Ordering::Acquire) != UNCHOSEN
}

pub(super) fn keep(source: Source) {
    let value = match source {
        Source::Pidfd => PIDFD,
        Source::Wait => WAIT,
        Source::Portable => PORTABLE,
    };
    SOURCE.store(value, Ordering::Release);
}
