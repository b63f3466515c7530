//! The library in the VM as a whole: start, stop, and counts of open things.

use std::time::Duration;

use exile_os::Errno;
use exile_os::exit::{self, Source};
use exile_os::life::{keeper, living, registry};
use exile_os::spawn::pool;
use rustler::types::atom::Atom;
use rustler::{Env, Term};

use crate::wait::{Caller, Wait, pid};
use crate::watch;
use crate::{atoms, pipe_end, request};

/// Called when the library is loaded. `exit_source` is the atom `wait` or `portable` to force that
/// source of exit statuses, even if the kernel has a better one.
pub(crate) fn start(exit_source: Term<'_>) -> Result<(), Errno> {
    let wanted = match exit_source.decode::<Atom>() {
        Ok(atom) if atom == atoms::wait() => Some(Source::Wait),
        Ok(atom) if atom == atoms::portable() => Some(Source::Portable),
        _ => None,
    };
    exit::choose(wanted)?;
    keeper::start()?;
    // Low descriptor numbers are still free now. Reserved ones are never released, so this comes
    // last: a library that fails to load must leave nothing behind.
    exile_os::spawn::reserve();
    Ok(())
}

/// Returns `:pidfd`, or `:wait` or `:portable`, which need SIGCHLD at its default disposition.
#[rustler::nif]
fn exit_source() -> Atom {
    match exit::source() {
        Source::Pidfd => atoms::pidfd(),
        Source::Wait => atoms::wait(),
        Source::Portable => atoms::portable(),
    }
}

/// How many things are open, by name. All counts are zero when nothing runs.
#[rustler::nif]
fn counts() -> Vec<(Atom, usize)> {
    vec![
        (atoms::pipes(), pipe_end::open_count()),
        (atoms::children(), exit::open_count()),
        (atoms::monitors(), watch::monitor_count()),
        (atoms::grown_pipes(), pipe_end::grown_count()),
        (atoms::teardowns(), registry::under_way()),
        (atoms::requests(), request::open_count()),
        (atoms::spawns(), pool::pending()),
    ]
}

/// Allows processes to be spawned, also again after [`stop_all`].
#[rustler::nif]
fn allow_spawns() -> Atom {
    request::open_door();
    atoms::ok()
}

/// Stops processes from being spawned, and begins to end all running processes at once, each by its
/// own teardown. The caller gets a message with `reference` when nothing is left to do. Returns how
/// many milliseconds the slowest may go on until SIGKILL, and how many spawns were still under way:
/// while there are any, more processes may appear.
#[rustler::nif]
fn stop_all<'a>(env: Env<'a>, reference: Term<'a>) -> (u64, usize) {
    request::close_door(env.into());
    let spawning = pool::pending();
    let longest: Duration = living::stop_all();
    let wait = Wait::new(pid(env), reference);
    let _ = keeper::when_idle(Box::new(move || {
        wait.wake(Caller::THREAD);
    }));
    let longest = longest.as_millis().try_into().unwrap_or(u64::MAX);
    (longest, spawning)
}
