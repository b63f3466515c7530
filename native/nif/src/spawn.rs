//! Running a command: what Elixir says about it, as `exile_os` wants it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use exile_os::{SpawnError, Stdio, Step};
use rustler::types::atom::Atom;
use rustler::types::local_pid::LocalPid;
use rustler::{Binary, Encoder, Env, Error, NifResult, Term};

use crate::command::{Life, Steps, living, serve, teardown};
use crate::resource::{Caller, Handle};
use crate::{atoms, encode};

/// What to run, as Elixir gives it: `{argv, directory | nil}`.
type What<'a> = (Vec<Binary<'a>>, Term<'a>);

/// `{environment of the VM as charlists, their encoding, changes as {name, value | nil}, start
/// empty?}`.
type Environment<'a> = (Term<'a>, Atom, Vec<(Binary<'a>, Term<'a>)>, bool);

/// Runs a command. The caller is its server and gets a message with `reference` when it ends;
/// `owner` owns the pipes. Standard input is a plan or `{:file, path}`. `{:ok, command, stdin, stdout, stderr}` (`nil` for what is no pipe)
/// or `{:error, step, reason}`. `teardowns` are the steps for a command that is
/// abandoned, and those for the end of the VM.
///
/// On a dirty scheduler, since it takes longer than a millisecond when the program is on a slow
/// disk; and on one of those for I/O, whose threads live as long as the VM, because a command is
/// bound to the thread that spawned it.
#[rustler::nif(schedule = "DirtyIo")]
fn spawn<'a>(
    env: Env<'a>,
    what: What<'a>,
    environment: Environment<'a>,
    stdio: (Term<'a>, Atom, Atom),
    owner: LocalPid,
    reference: Term<'a>,
    teardowns: (Steps<'a>, Steps<'a>),
) -> NifResult<Term<'a>> {
    let abandoned = teardown(0, teardowns.0)?;
    let at_stop = teardown(0, teardowns.1)?;
    let stdin = match stdio.0.decode::<(Atom, Binary<'a>)>() {
        Ok((kind, path)) if kind == atoms::file() => {
            match Stdio::read_from(OsStr::from_bytes(path.as_slice())) {
                Ok(file) => file,
                Err(errno) => {
                    let error = SpawnError {
                        step: Step::Input,
                        errno,
                    };
                    return Ok(encode::spawn_error(env, error));
                }
            }
        }
        _ => decode_stdio(stdio.0.decode()?)?,
    };
    let command = decode_command(what, environment)?.stdio(
        stdin,
        decode_stdio(stdio.1)?,
        decode_stdio(stdio.2)?,
    );
    let spawned = match exile_os::spawn(&command) {
        Ok(spawned) => spawned,
        Err(error) => return Ok(encode::spawn_error(env, error)),
    };

    let caller = Caller::from(env);
    let stdin = spawned.stdin.map(|end| Handle::writing(caller, end, owner));
    let stdout = spawned
        .stdout
        .map(|end| Handle::reading(caller, end, owner));
    let stderr = spawned
        .stderr
        .map(|end| Handle::reading(caller, end, owner));
    let pipes = [&stdin, &stdout, &stderr]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let life = Life::new(spawned.child, pipes, abandoned, at_stop);
    living().insert(Arc::as_ptr(&life).addr(), Arc::downgrade(&life));
    Ok(match serve(env, life, reference) {
        Ok(handle) => (atoms::ok(), handle, stdin, stdout, stderr).encode(env),
        Err(errno) => encode::spawn_error(
            env,
            SpawnError {
                step: Step::Watch,
                errno,
            },
        ),
    })
}

fn decode_command<'a>(
    what: What<'a>,
    environment: Environment<'a>,
) -> NifResult<exile_os::Command> {
    let (argv, directory) = what;
    let mut argv = argv
        .into_iter()
        .map(|argument| c_string(argument.as_slice()));
    let program = argv.next().ok_or(Error::BadArg)??;
    let arguments = argv.collect::<NifResult<Vec<CString>>>()?;
    let directory = match directory.decode::<Binary<'a>>() {
        Ok(directory) => Some(c_string(directory.as_slice())?),
        Err(_) => None,
    };

    let (inherited, encoding, changes, clear) = environment;
    let latin1 = encoding == atoms::latin1();
    let inherited = inherited
        .into_list_iterator()?
        .map(|variable| variable_bytes(variable, latin1))
        .collect::<NifResult<Vec<_>>>()?;
    let path = inherited
        .iter()
        .find_map(|entry| entry.strip_prefix(b"PATH="));
    let path = path.map(<[u8]>::to_vec);
    let changed = |entry: &Vec<u8>| {
        // The name ends at the first `=` that is not the first byte.
        let end = entry
            .iter()
            .skip(1)
            .position(|byte| *byte == b'=')
            .map(|index| index + 1);
        let name = &entry[..end.unwrap_or(entry.len())];
        changes
            .iter()
            .any(|(changed, _)| changed.as_slice() == name)
    };
    let mut block = Vec::new();
    if !clear {
        for entry in inherited.iter().filter(|entry| !changed(entry)) {
            block.push(c_string(entry)?);
        }
    }
    for (name, value) in &changes {
        if let Ok(value) = value.decode::<Binary<'a>>() {
            block.push(c_string(
                &[name.as_slice(), b"=", value.as_slice()].concat(),
            )?);
        }
    }
    let path = path.as_deref().map(OsStr::from_bytes);
    Ok(exile_os::Command::new(program, arguments, block, path).directory(directory))
}

pub(crate) fn c_string(bytes: &[u8]) -> NifResult<CString> {
    CString::new(bytes).map_err(|_| Error::BadArg)
}

/// The bytes of a variable of the VM's environment, `NAME=value` as a charlist.
///
/// A VM that takes names for UTF-8 shows the bytes of what is none as characters below 256. Such
/// a list has two readings; the bytes are the right one if the VM has inherited them.
fn variable_bytes(list: Term<'_>, latin1: bool) -> NifResult<Vec<u8>> {
    let mut utf8 = Vec::new();
    let mut bytes = Some(Vec::new());
    for code in list.into_list_iterator()? {
        let code: u32 = code.decode()?;
        let char = char::from_u32(code).ok_or(Error::BadArg)?;
        utf8.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        bytes = bytes.zip(u8::try_from(code).ok()).map(|(mut bytes, byte)| {
            bytes.push(byte);
            bytes
        });
    }
    Ok(match bytes {
        Some(bytes) if latin1 => bytes,
        Some(bytes) if std::str::from_utf8(&bytes).is_err() && is_inherited(&bytes) => bytes,
        _ => utf8,
    })
}

fn is_inherited(variable: &[u8]) -> bool {
    std::env::vars_os().any(|(name, value)| {
        let rest = variable.strip_prefix(name.as_bytes());
        rest.and_then(|rest| rest.strip_prefix(b"=")) == Some(value.as_bytes())
    })
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
