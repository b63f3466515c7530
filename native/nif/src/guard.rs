//! The guard, seen from the VM: a command of its own kind, that outlives the VM.

use std::ffi::CString;
use std::sync::{Arc, Weak};
use std::time::Duration;

use exile_os::{SpawnError, Stdio, Step, Teardown, guard};
use rustler::types::atom::Atom;
use rustler::{Binary, Encoder, Env, NifResult, Term};

use crate::command::{Command, Life, living, serve};
use crate::resource::Handle;
use crate::spawn::c_string;
use crate::{atoms, encode};

/// Starts the guard, the program at `path`, in place of one that is gone, and tells it of all
/// commands that run. The caller is its server. `{:ok, command}` or `{:error, 0, step, reason}`.
#[rustler::nif(schedule = "DirtyIo")]
fn guard_start<'a>(env: Env<'a>, path: Binary<'a>, reference: Term<'a>) -> NifResult<Term<'a>> {
    let path = c_string(path.as_slice())?;
    let vm = c_string(std::process::id().to_string().as_bytes())?;
    Ok(match start_guard(env, path, vm, reference) {
        Ok(handle) => (atoms::ok(), handle).encode(env),
        Err(error) => {
            guard::disconnect();
            encode::spawn_error(env, 0, error)
        }
    })
}

fn start_guard(
    env: Env<'_>,
    path: CString,
    vm: CString,
    reference: Term<'_>,
) -> Result<Handle<Command>, SpawnError> {
    let at = |step| move |errno| SpawnError { step, errno };
    let socket = guard::connect().map_err(at(Step::Stdio))?;
    let command = exile_os::Command::new(path, [vm], Vec::new(), None)
        .directory(Some(c"/".to_owned()))
        .stdio(Stdio::Fd(socket), Stdio::Null, Stdio::Null)
        .detached();
    let child = exile_os::spawn(&command)?.child;
    // It holds nothing that it would have to put in order.
    let at_once = Teardown {
        grace: Duration::ZERO,
        steps: Vec::new(),
    };
    let life = Life::new(child, Vec::new(), at_once.clone(), at_once);
    let handle = serve(env, life, reference).map_err(at(Step::Watch))?;
    let running: Vec<Arc<Life>> = living().values().filter_map(Weak::upgrade).collect();
    for life in running {
        guard::report_patiently(&life.child);
    }
    Ok(handle)
}

/// `true` where commands outlive a VM that is killed, unless there is a guard.
#[rustler::nif]
fn guard_is_needed() -> bool {
    guard::IS_NEEDED
}

/// Reports to the guard no more.
#[rustler::nif]
fn guard_stop() -> Atom {
    guard::disconnect();
    atoms::ok()
}
