//! Decodes the arguments of a spawn for `exile_os`.

use std::ffi::CString;
use std::time::Duration;

use exile_os::{Attributes, Command, Cpus, Errno, IoPriority, Limit, Nice, Stdio, Umask};
use rustler::types::atom::Atom;
use rustler::{Binary, Env, Error, NifMap, NifResult, Term};

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
    /// The environment of the VM as one binary, the same as a list, and its encoding.
    block: Term<'a>,
    environment: Term<'a>,
    encoding: Atom,
    /// A feeder will evaluate the input, and its death ends all commands.
    fed: bool,
    /// All commands are ended when the handle for this is garbage-collected.
    tethered: bool,
    /// How many milliseconds descendants of an ended command may keep the pipe to the next one
    /// open.
    drain: Option<u64>,
}

/// One command.
#[derive(NifMap)]
#[rustler(decode)]
struct Stage<'a> {
    /// Each argument, followed by a NUL.
    argv: Binary<'a>,
    directory: Option<Binary<'a>>,
    /// Each variable, followed by a NUL.
    set: Binary<'a>,
    unset: Binary<'a>,
    clear_env: bool,
    stderr: Term<'a>,
    teardown: Steps,
    attributes: Term<'a>,
}

/// Attributes of the process set by options; `nil` means not set.
#[derive(NifMap)]
#[rustler(decode)]
struct Attribute<'a> {
    arg0: Option<Binary<'a>>,
    nice: Option<i32>,
    umask: Option<u32>,
    cpus: Option<Vec<u32>>,
    io_priority: Term<'a>,
    /// The name of each, and its soft and its hard limit.
    limits: Vec<(Atom, u64, u64)>,
    no_new_privs: bool,
}

/// Anything that does not decode as [`Attribute`] is a bad argument, and so is a number out of
/// range.
fn attributes(term: Term<'_>) -> NifResult<Attributes> {
    let given: Attribute<'_> = term.decode().map_err(|_| Error::BadArg)?;
    Ok(Attributes {
        arg0: string(given.arg0.as_ref())?,
        nice: checked(given.nice, Nice::new)?,
        umask: checked(given.umask, Umask::new)?,
        cpus: checked(given.cpus, |numbers| Cpus::new(&numbers))?,
        io_priority: io_priority(given.io_priority)?,
        limits: given
            .limits
            .into_iter()
            .map(|limit| self::limit(term.get_env(), limit))
            .collect::<NifResult<_>>()?,
        no_new_privs: given.no_new_privs,
    })
}

fn limit(env: Env<'_>, (name, soft, hard): (Atom, u64, u64)) -> NifResult<Limit> {
    let name = name.to_term(env).atom_to_string()?;
    Limit::new(&name, soft, hard).ok_or(Error::BadArg)
}

/// Decodes `:idle`, `{:best_effort, level}` or `nil`.
fn io_priority(term: Term<'_>) -> NifResult<Option<IoPriority>> {
    if let Ok(name) = term.decode::<Atom>() {
        return [
            (atoms::nil(), None),
            (atoms::idle(), Some(IoPriority::IDLE)),
        ]
        .into_iter()
        .find_map(|(atom, priority)| (atom == name).then_some(priority))
        .ok_or(Error::BadArg);
    }
    let (class, level) = term.decode::<(Atom, u8)>().map_err(|_| Error::BadArg)?;
    let known = class == atoms::best_effort();
    let priority = known.then(|| IoPriority::best_effort(level)).flatten();
    priority.map(Some).ok_or(Error::BadArg)
}

fn checked<T, U>(value: Option<T>, check: impl FnOnce(T) -> Option<U>) -> NifResult<Option<U>> {
    value
        .map(|value| check(value).ok_or(Error::BadArg))
        .transpose()
}

/// What applies to all commands of a spawn.
pub(crate) struct Plan {
    pub(crate) inherited: Inherited,
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) fed: bool,
    pub(crate) tethered: bool,
    pub(crate) drain: Option<Duration>,
}

impl<'a> Spec<'a> {
    /// What applies to all commands, and each command with its teardown.
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

/// A command as it was given. The spawner splits its strings.
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

/// Decodes `{:read, path}`, `{:write, path, append?}`, `:pipe`, `:null`, `:inherit` or `:stdout`.
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
