//! Values of `exile_os` as Erlang terms.

use exile_os::{Errno, SpawnError, Status, Step};
use rustler::types::atom::Atom;
use rustler::{Encoder, Env, NifMap, Term};

use crate::atoms;

/// The POSIX name as an atom; `{:errno, number}` where there is none.
pub(crate) fn errno(env: Env<'_>, errno: Errno) -> Term<'_> {
    match errno
        .name()
        .and_then(|name| Atom::from_str(env, &name).ok())
    {
        Some(name) => name.encode(env),
        None => (atoms::errno(), errno.raw()).encode(env),
    }
}

/// `{:error, reason}`.
pub(crate) fn error(env: Env<'_>, reason: Errno) -> Term<'_> {
    (atoms::error(), errno(env, reason)).encode(env)
}

/// `{:error, failure}`: which command, counted from 0, what was being done, what the system said.
pub(crate) fn spawn_error(env: Env<'_>, index: usize, error: SpawnError) -> Term<'_> {
    let step = name(env, error.step);
    let failure = Failure {
        index,
        step,
        reason: errno(env, error.errno),
    };
    (atoms::error(), failure).encode(env)
}

/// A step by its name.
fn name(env: Env<'_>, step: Step) -> Atom {
    // It fails only for names that are no Latin-1 or longer than 255.
    Atom::from_str(env, step.name()).unwrap_or(atoms::unknown())
}

/// Why nothing was started.
#[derive(NifMap)]
struct Failure<'a> {
    index: usize,
    step: Atom,
    reason: Term<'a>,
}

/// `{:exited, code}`, `{:signaled, signal, core_dumped}`, `:unknown` or `:running`.
pub(crate) fn status(env: Env<'_>, status: Option<Status>) -> Term<'_> {
    match status {
        None => atoms::running().encode(env),
        Some(Status::Exited(code)) => (atoms::exited(), code).encode(env),
        Some(Status::Signaled { signal, core }) => (atoms::signaled(), signal, core).encode(env),
        Some(Status::Unknown) => atoms::unknown().encode(env),
    }
}
