//! Values of `exile_os` as Erlang terms.

use exile_os::{Errno, Signal, SpawnError, Status, Step};
use rustler::types::atom::Atom;
use rustler::{Encoder, Env, NifMap, Term};

use crate::atoms;

/// The POSIX name as an atom, or `{:errno, number}` if there is none.
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

/// `{:error, failure}`: the index of the command, the step that failed and the error of the system.
pub(crate) fn spawn_error(env: Env<'_>, index: usize, error: SpawnError) -> Term<'_> {
    let step = name(env, error.step);
    let failure = Failure {
        index,
        step,
        reason: errno(env, error.errno),
    };
    (atoms::error(), failure).encode(env)
}

/// The name of a step as an atom.
fn name(env: Env<'_>, step: Step) -> Atom {
    // This fails only for names that are not Latin-1 or are longer than 255 characters.
    Atom::from_str(env, step.name()).unwrap_or(atoms::unknown())
}

/// Why nothing was started.
#[derive(NifMap)]
struct Failure<'a> {
    index: usize,
    step: Atom,
    reason: Term<'a>,
}

/// How a process ended.
#[derive(NifMap)]
struct Ended<'a> {
    /// The exit code; after a signal, 128 plus its number.
    code: u8,
    /// The signal that ended it: its name as an atom, its number if it has no name, or `nil`.
    signal: Term<'a>,
    core_dumped: bool,
}

/// [`Ended`], `:unknown` or `:running`.
pub(crate) fn status(env: Env<'_>, status: Option<Status>) -> Term<'_> {
    let Some(status) = status else {
        return atoms::running().encode(env);
    };
    let Some(code) = status.code() else {
        return atoms::unknown().encode(env);
    };
    let (signal, core_dumped) = match status {
        Status::Signaled { signal, core } => (signal_name(env, signal), core),
        _ => (atoms::nil().encode(env), false),
    };
    let ended = Ended {
        code,
        signal,
        core_dumped,
    };
    ended.encode(env)
}

/// A signal's name as an atom, or its number where it has no name.
fn signal_name(env: Env<'_>, number: u8) -> Term<'_> {
    Signal::name_of(number)
        .and_then(|name| Atom::from_str(env, &name).ok())
        .map_or_else(|| number.encode(env), |name| name.encode(env))
}
