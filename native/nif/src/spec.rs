//! What Elixir says about a spawn, as `exile_os` wants it.

use std::ffi::CString;
use std::time::Duration;

use exile_os::{Attributes, Command, Errno, Nice, Stdio, Umask};
use rustler::types::atom::Atom;
use rustler::{Binary, Error, NifMap, NifResult, Term};

use crate::atoms;
use crate::environment::{Changes, Inherited, owned, parts, strings};
use crate::process::Steps;

/// What to run, and how.
#[derive(NifMap)]
#[rustler(decode)]
pub(crate) struct Spec<'a> {
    stages: Vec<Stage<'a>>,
    stdin: Term<'a>,
    stdout: Term<'a>,
    /// The environment of the VM in one piece, the same in its parts, and its encoding.
    block: Term<'a>,
    environment: Term<'a>,
    encoding: Atom,
    /// Another process will evaluate the input, and its death is the end of all.
    fed: bool,
    /// All ends when the handle for this is collected.
    tethered: bool,
    /// How many milliseconds a command waits for what descendants of the one before it hold open.
    drain: Option<u64>,
}

/// One command.
#[derive(NifMap)]
#[rustler(decode)]
struct Stage<'a> {
    /// Each argument and a NUL.
    argv: Binary<'a>,
    directory: Option<Binary<'a>>,
    /// Each variable and a NUL.
    set: Binary<'a>,
    unset: Binary<'a>,
    clear_env: bool,
    stderr: Term<'a>,
    teardown: Steps,
    attributes: Term<'a>,
}

/// What options say of the process; `nil` is nothing.
#[derive(NifMap)]
#[rustler(decode)]
struct Attribute<'a> {
    arg0: Option<Binary<'a>>,
    nice: Option<i32>,
    umask: Option<u32>,
}

/// What is not as [`Attribute`] has it is a bad argument, also a number that is out of range.
fn attributes(term: Term<'_>) -> NifResult<Attributes> {
    let given: Attribute<'_> = term.decode().map_err(|_| Error::BadArg)?;
    Ok(Attributes {
        arg0: string(given.arg0.as_ref())?,
        nice: checked(given.nice, Nice::new)?,
        umask: checked(given.umask, Umask::new)?,
    })
}

fn checked<T, U>(value: Option<T>, check: impl FnOnce(T) -> Option<U>) -> NifResult<Option<U>> {
    value
        .map(|value| check(value).ok_or(Error::BadArg))
        .transpose()
}

/// What holds for all commands of a spawn.
pub(crate) struct Plan {
    pub(crate) inherited: Inherited,
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) fed: bool,
    pub(crate) tethered: bool,
    pub(crate) drain: Option<Duration>,
}

impl<'a> Spec<'a> {
    /// What holds for all commands; and each of them, with its teardown.
    pub(crate) fn decode(self) -> NifResult<(Plan, Vec<(Given, Steps)>)> {
        let plan = Plan {
            inherited: Inherited::decode(self.block, self.environment, self.encoding)?,
            stdin: stdio(self.stdin)?,
            stdout: stdio(self.stdout)?,
            fed: self.fed,
            tethered: self.tethered,
            drain: self.drain.map(Duration::from_millis),
        };
        let stages = self.stages.into_iter().map(Stage::decode);
        Ok((plan, stages.collect::<NifResult<_>>()?))
    }
}

/// A command, as it was given. Its strings are taken apart by the spawner.
pub(crate) struct Given {
    argv: Vec<u8>,
    directory: Option<CString>,
    changes: Changes,
    stderr: Stdio,
    attributes: Attributes,
}

impl<'a> Stage<'a> {
    fn decode(self) -> NifResult<(Given, Steps)> {
        let given = Given {
            argv: owned(&self.argv)?,
            directory: string(self.directory.as_ref())?,
            changes: Changes {
                set: owned(&self.set)?,
                unset: owned(&self.unset)?,
                clear: self.clear_env,
            },
            stderr: stdio(self.stderr)?,
            attributes: attributes(self.attributes)?,
        };
        Ok((given, self.teardown))
    }
}

impl Given {
    /// Whether its standard error is a pipe.
    pub(crate) fn has_error_pipe(&self) -> bool {
        matches!(self.stderr, Stdio::Pipe)
    }

    pub(crate) fn stage(self, inherited: &Inherited) -> Result<exile_os::Stage, Errno> {
        let mut argv = strings(parts(&self.argv))?.into_iter();
        let program = argv.next().ok_or(Errno::EINVAL)?;
        let env = inherited.changed(&self.changes)?;
        let command = Command::new(program, argv, env, inherited.path())
            .directory(self.directory)
            .attributes(self.attributes);
        Ok(exile_os::Stage {
            command,
            stderr: self.stderr,
        })
    }
}

fn string(bytes: Option<&Binary<'_>>) -> NifResult<Option<CString>> {
    bytes.map(|bytes| c_string(bytes.as_slice())).transpose()
}

pub(crate) fn c_string(bytes: impl Into<Vec<u8>>) -> NifResult<CString> {
    CString::new(bytes).map_err(|_| Error::BadArg)
}

/// `{:read, path}`, `{:write, path, append?}`, `:pipe`, `:null`, `:inherit` or `:stdout`.
fn stdio(plan: Term<'_>) -> NifResult<Stdio> {
    if let Ok((kind, path)) = plan.decode::<(Atom, Binary<'_>)>() {
        if kind == atoms::read() {
            return Ok(Stdio::Read(c_string(path.as_slice())?));
        }
    }
    if let Ok((kind, path, append)) = plan.decode::<(Atom, Binary<'_>, bool)>() {
        if kind == atoms::write() {
            let path = c_string(path.as_slice())?;
            return Ok(Stdio::Write { path, append });
        }
    }
    let name: Atom = plan.decode()?;
    [
        (atoms::pipe(), Stdio::Pipe),
        (atoms::null(), Stdio::Null),
        (atoms::inherit(), Stdio::Inherit),
        (atoms::stdout(), Stdio::Stdout),
    ]
    .into_iter()
    .find_map(|(atom, stdio)| (atom == name).then_some(stdio))
    .ok_or(Error::BadArg)
}
