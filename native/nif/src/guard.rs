//! The NIFs of the guard, a program of Exile itself that outlives the VM.

use std::ffi::CString;
use std::time::Duration;

use exile_os::guard::{self, Turn};
use exile_os::{Attempt, Errno, SpawnError, Stdio, Step, Streams, Teardown, life};
use rustler::types::atom::Atom;
use rustler::{Binary, Encoder, Env, NifResult, Term};

use crate::bonds::{Bonds, Life};
use crate::process::Process;
use crate::resource::Handle;
use crate::spawn::submit;
use crate::spec::c_string;
use crate::wait::{Caller, Pid, pid};
use crate::{atoms, encode};

/// Starts the guard, the program at `path`, in place of one that is gone, and reports all running
/// processes to it. The caller owns it and gets the message `{reference, answer}`: `{:ok, process}`
/// or an error, as from `spawn`.
#[rustler::nif]
fn guard_start<'a>(env: Env<'a>, path: Binary<'a>, reference: Term<'a>) -> NifResult<Term<'a>> {
    let path = c_string(path.as_slice())?;
    let vm = c_string(std::process::id().to_string().as_bytes())?;
    let owner = pid(env);
    // In the order in which owners ask, whichever spawner is quicker.
    let turn = Turn::take();
    Ok(submit(env, reference, true, move |request| {
        let started = start(path, vm, owner, &turn, &request.attempt);
        let wait = request.over();
        match (wait, started) {
            (Some(wait), Ok(process)) => {
                wait.answer(Caller::THREAD, |env| (atoms::ok(), process).encode(env));
            }
            (Some(wait), Err(error)) => {
                wait.answer(Caller::THREAD, |env| encode::spawn_error(env, 0, error));
            }
            // Nobody wants the answer any more.
            (None, started) => drop(started.map(|process| process.life().end())),
        }
    }))
}

fn start(
    path: CString,
    vm: CString,
    owner: Pid,
    turn: &Turn,
    attempt: &Attempt,
) -> Result<Handle<Process>, SpawnError> {
    let at = |step| move |errno: Errno| SpawnError { step, errno };
    let socket = turn.connect().map_err(at(Step::Stdio))?;
    let command = exile_os::Command::new(path, [vm], Vec::new(), None)
        .directory(Some(c"/".to_owned()))
        .detached();
    let streams = Streams {
        stdin: Stdio::Fd(socket),
        stdout: Stdio::Null,
        stderr: Stdio::Null,
    };
    // It has nothing to clean up.
    let at_once = Teardown {
        grace: Duration::ZERO,
        steps: Vec::new(),
    };
    let begun = exile_os::spawn(&command, &streams, attempt).and_then(|spawned| {
        let bonds = Bonds::new(owner);
        Life::begin_apart(spawned.child, at_once, bonds).map_err(at(Step::Watch))
    });
    let life = begun.inspect_err(|_| turn.disconnect())?;
    life::registry::children().iter().for_each(guard::report);
    Ok(Handle::of(Caller::THREAD, life, owner))
}

/// `true` where processes outlive a VM that is killed, unless there is a guard.
#[rustler::nif]
fn guard_is_needed() -> bool {
    guard::IS_NEEDED
}

/// Stops reporting to the guard.
#[rustler::nif]
fn guard_stop() -> Atom {
    guard::disconnect();
    atoms::ok()
}
