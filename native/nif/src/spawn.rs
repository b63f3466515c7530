//! Running commands: what Elixir says about them, as `exile_os` wants it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use exile_os::{Errno, Pipeline, SpawnError, Stdio, Step, Teardown, guard, spawn_pipeline};
use rustler::types::atom::Atom;
use rustler::types::local_pid::LocalPid;
use rustler::{Binary, Encoder, Env, Error, NifResult, Term};

use crate::command::{Command, Life, Steps, living, serve, teardown};
use crate::environment::{Change, Inherited};
use crate::pipe::Pipe;
use crate::question::Question;
use crate::resource::{Caller, Handle};
use crate::turn::{Refused, Turn};
use crate::{atoms, encode};

/// A command, as Elixir gives it: `{argv, directory | nil, {changes of the environment, start
/// with none?}, standard error, {steps for an abandoned command, steps for the end of the VM}}`.
type Stage<'a> = (
    Vec<Binary<'a>>,
    Term<'a>,
    (Vec<Change<'a>>, bool),
    Atom,
    (Steps<'a>, Steps<'a>),
);

/// Runs commands, each reading what the one before it writes. `environment` is that of the VM
/// and its encoding, `stdio` the plans for the input of the first and the output of the last.
/// The caller is their server and gets a message with `reference` when one of them ends; `owner`
/// owns the pipes. `turn` is `{reference, asked before?}`.
///
/// `{:ok, commands, stdin, stdout, stderr}` (`nil` for what is no pipe), `:wait` (the caller gets
/// a message with the reference of its turn when it is worth asking again) or `{:error, index of
/// the command, step, reason}`.
///
/// On a dirty scheduler, since it takes longer than a millisecond when a program is on a slow
/// disk; and on one of those for I/O, whose threads live as long as the VM, because a command is
/// bound to the thread that spawned it.
#[rustler::nif(schedule = "DirtyIo")]
fn spawn<'a>(
    env: Env<'a>,
    stages: Vec<Stage<'a>>,
    environment: (Term<'a>, Atom),
    stdio: (Term<'a>, Term<'a>),
    owner: LocalPid,
    reference: Term<'a>,
    turn: (Term<'a>, bool),
) -> NifResult<Term<'a>> {
    let _turn = match Turn::take(env, turn.0, turn.1) {
        Ok(turn) => turn,
        Err(Refused::NotYet) => return Ok(atoms::wait().encode(env)),
        Err(Refused::Closed) => return Ok(failed(env, 0, Step::Clone, Errno::ECANCELED)),
    };
    let inherited = Inherited::decode(environment.0, environment.1)?;
    let mut commands = Vec::with_capacity(stages.len());
    let mut teardowns = Vec::with_capacity(stages.len());
    let mut errors = Vec::with_capacity(stages.len());
    for (argv, directory, (changes, clear), stderr, (abandoned, at_stop)) in stages {
        teardowns.push((teardown(0, abandoned)?, teardown(0, at_stop)?));
        errors.push(stderr == atoms::pipe());
        let block = inherited.changed(&changes, clear)?;
        let command = decode_command(argv, directory, block, inherited.path())?;
        commands.push(command.stdio(Stdio::Pipe, Stdio::Pipe, decode_stdio(stderr)?));
    }
    let stdin = match input(stdio.0)? {
        Ok(stdin) => stdin,
        Err(errno) => return Ok(failed(env, 0, Step::Input, errno)),
    };
    let stdout = match output(stdio.1)? {
        Ok(stdout) => stdout,
        Err(errno) => return Ok(failed(env, 0, Step::Output, errno)),
    };
    let guards = guard::connections();
    Ok(match spawn_pipeline(commands, stdin, stdout) {
        Ok(pipeline) => serve_all(env, pipeline, guards, owner, &errors, teardowns, reference),
        Err((index, error)) => encode::spawn_error(env, index, error),
    })
}

/// Makes the caller the server of the commands. `guards` is how many there had been before.
fn serve_all<'a>(
    env: Env<'a>,
    pipeline: Pipeline,
    guards: usize,
    owner: LocalPid,
    errors: &[bool],
    teardowns: Vec<(Teardown, Teardown)>,
    reference: Term<'a>,
) -> Term<'a> {
    let caller = Caller::from(env);
    let question = Question::default();
    let writers = errors.iter().filter(|pipe| **pipe).count();
    let stdin = pipeline
        .stdin
        .map(|end| Handle::writing(caller, end, owner, question.clone()));
    let stdout = pipeline
        .stdout
        .map(|end| Handle::reading(caller, end, owner, 1, question.clone()));
    let stderr = pipeline
        .stderr
        .map(|end| Handle::reading(caller, end, owner, writers, question.clone()));

    let last = errors.len() - 1;
    let lives: Vec<Arc<Life>> = pipeline
        .children
        .into_iter()
        .zip(teardowns)
        .enumerate()
        .map(|(index, (child, (abandoned, at_stop)))| {
            let pipes: [(bool, &Option<Handle<Pipe>>); 3] = [
                (index == 0, &stdin),
                (index == last, &stdout),
                (errors[index], &stderr),
            ];
            let pipes = pipes
                .into_iter()
                .filter_map(|(held, pipe)| pipe.clone().filter(|_| held))
                .collect();
            Life::new(child, pipes, abandoned, at_stop)
        })
        .collect();
    for life in &lives {
        living().insert(Arc::as_ptr(life).addr(), Arc::downgrade(life));
    }
    // A guard that came meanwhile may have been told of all that lived before these did.
    if guard::connections() != guards {
        for life in &lives {
            guard::report_patiently(&life.child);
        }
    }
    // Every one gets its handle before a failure is told: without one nobody would end it.
    let served: Vec<_> = lives
        .into_iter()
        .map(|life| serve(env, life, reference))
        .collect();
    let mut commands: Vec<Handle<Command>> = Vec::with_capacity(served.len());
    for (index, command) in served.into_iter().enumerate() {
        match command {
            Ok(command) => commands.push(command),
            Err(errno) => return failed(env, index, Step::Watch, errno),
        }
    }
    (atoms::ok(), commands, stdin, stdout, stderr).encode(env)
}

fn failed(env: Env<'_>, index: usize, step: Step, errno: Errno) -> Term<'_> {
    encode::spawn_error(env, index, SpawnError { step, errno })
}

fn decode_command<'a>(
    argv: Vec<Binary<'a>>,
    directory: Term<'a>,
    block: Vec<CString>,
    path: Option<&OsStr>,
) -> NifResult<exile_os::Command> {
    let mut argv = argv
        .into_iter()
        .map(|argument| c_string(argument.as_slice()));
    let program = argv.next().ok_or(Error::BadArg)??;
    let arguments = argv.collect::<NifResult<Vec<CString>>>()?;
    let directory = match directory.decode::<Binary<'a>>() {
        Ok(directory) => Some(c_string(directory.as_slice())?),
        Err(_) => None,
    };
    Ok(exile_os::Command::new(program, arguments, block, path).directory(directory))
}

pub(crate) fn c_string(bytes: impl Into<Vec<u8>>) -> NifResult<CString> {
    CString::new(bytes).map_err(|_| Error::BadArg)
}

/// `{:file, path}` or a plan.
fn input(plan: Term<'_>) -> NifResult<Result<Stdio, Errno>> {
    match plan.decode::<(Atom, Binary<'_>)>() {
        Ok((kind, path)) if kind == atoms::file() => {
            Ok(Stdio::read_from(OsStr::from_bytes(path.as_slice())))
        }
        _ => decode_stdio(plan.decode()?).map(Ok),
    }
}

/// `{:file, path, append?}` or a plan.
fn output(plan: Term<'_>) -> NifResult<Result<Stdio, Errno>> {
    match plan.decode::<(Atom, Binary<'_>, bool)>() {
        Ok((kind, path, append)) if kind == atoms::file() => {
            Ok(Stdio::write_to(OsStr::from_bytes(path.as_slice()), append))
        }
        _ => decode_stdio(plan.decode()?).map(Ok),
    }
}

fn decode_stdio(stdio: Atom) -> NifResult<Stdio> {
    [
        (atoms::pipe(), Stdio::Pipe),
        (atoms::null(), Stdio::Null),
        (atoms::inherit(), Stdio::Inherit),
        (atoms::stdout(), Stdio::Stdout),
    ]
    .into_iter()
    .find_map(|(name, plan)| (name == stdio).then_some(plan))
    .ok_or(Error::BadArg)
}
