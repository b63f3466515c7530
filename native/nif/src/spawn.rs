//! Starting processes: what Elixir says about them, as `exile_os` wants it. A spawner does the work,
//! and the answer is a message.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use exile_os::spawn::pool;
use exile_os::{Child, Errno, Pipeline, SpawnError, Stdio, Step, Teardown, guard};
use exile_os::{discard, spawn_pipeline};
use rustler::types::atom::Atom;
use rustler::{Binary, Encoder, Env, Error, NifMap, NifResult, Term};

use crate::end::Fd;
use crate::environment::{Changes, Inherited, owned, parts, strings};
use crate::pipe::{Ends, Grip, Pipe};
use crate::process::{Bonds, Life, Process, Steps, Tether, bound_drains, end_together, teardown};
use crate::question::Question;
use crate::request::{CLOSED, Request};
use crate::resource::{Caller, Handle, Pid, Wait, pid};
use crate::{atoms, encode};

/// What to run, and how.
#[derive(NifMap)]
struct Spec<'a> {
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
struct Stage<'a> {
    /// Each argument and a NUL.
    argv: Binary<'a>,
    directory: Option<Binary<'a>>,
    /// Each variable and a NUL.
    set: Binary<'a>,
    unset: Binary<'a>,
    clear_env: bool,
    stderr: Term<'a>,
    teardown: Steps<'a>,
}

/// The answer to a spawn.
#[derive(NifMap)]
struct Running {
    processes: Vec<Handle<Process>>,
    stdin: Option<Handle<Grip>>,
    stdout: Option<Handle<Grip>>,
    stderr: Option<Handle<Grip>>,
    tether: Option<Handle<Tether>>,
}

/// Has commands run, each reading what the one before it writes. The caller owns them and their
/// pipes, and gets the message `{reference, answer}`: `{:ok, running}` or `{:error, failure}`.
/// Returns the request, by which the caller can give up, or such an error.
#[rustler::nif]
fn spawn<'a>(env: Env<'a>, spec: Spec<'a>, reference: Term<'a>) -> NifResult<Term<'a>> {
    let mut job = Job {
        owner: pid(env),
        inherited: Inherited::decode(spec.block, spec.environment, spec.encoding)?,
        commands: Vec::with_capacity(spec.stages.len()),
        teardowns: Vec::with_capacity(spec.stages.len()),
        errors: Vec::with_capacity(spec.stages.len()),
        stdin: decode_stdio(spec.stdin)?,
        stdout: decode_stdio(spec.stdout)?,
        fed: spec.fed,
        tethered: spec.tethered,
        drain: spec.drain.map(Duration::from_millis),
    };
    for stage in spec.stages {
        job.teardowns.push(teardown(0, stage.teardown)?);
        let stderr = decode_stdio(stage.stderr)?;
        job.errors.push(matches!(stderr, Stdio::Pipe));
        let directory = stage.directory;
        job.commands.push(Given {
            argv: owned(&stage.argv)?,
            directory: directory
                .map(|path| c_string(path.as_slice()))
                .transpose()?,
            changes: Changes {
                set: owned(&stage.set)?,
                unset: owned(&stage.unset)?,
                clear: stage.clear_env,
            },
            stderr,
        });
    }
    Ok(submit(env, reference, false, |request| job.run(&request)))
}

/// Has `job` done by a spawner, for the caller. `apart`: it is a program of our own, for which it
/// does not matter whether others may be spawned.
pub(crate) fn submit<'a>(
    env: Env<'a>,
    reference: Term<'a>,
    apart: bool,
    job: impl FnOnce(Handle<Request>) + Send + 'static,
) -> Term<'a> {
    let caller = pid(env);
    let wait = Wait::new(caller, reference);
    let Some(request) = Handle::ask(env.into(), caller, wait, apart) else {
        return encode::spawn_error(env, 0, CLOSED);
    };
    let asked = request.clone();
    let answered = Answered(request.clone());
    let job = move || {
        let _answered = answered;
        job(asked);
    };
    match pool::submit(Box::new(job)) {
        Ok(()) => request.encode(env),
        Err(errno) => {
            request.over(env.into());
            let step = Step::Clone;
            encode::spawn_error(env, 0, SpawnError { step, errno })
        }
    }
}

/// Sees to it that a request gets an answer, also when its job fails in a way that nobody foresaw.
struct Answered(Handle<Request>);

impl Drop for Answered {
    fn drop(&mut self) {
        if let Some(wait) = self.0.over(Caller::THREAD) {
            let error = SpawnError {
                step: Step::Clone,
                errno: Errno::ECANCELED,
            };
            wait.answer(Caller::THREAD, |env| encode::spawn_error(env, 0, error));
        }
    }
}

/// Gives up a spawn. `:ok`: no message will come, and what is being made is killed. `:sent`: it has
/// been sent.
#[rustler::nif]
fn spawn_cancel(env: Env<'_>, request: Handle<Request>) -> Atom {
    if request.give_up(env.into()) {
        atoms::ok()
    } else {
        atoms::sent()
    }
}

/// A spawn, as a spawner does it.
struct Job {
    owner: Pid,
    inherited: Inherited,
    commands: Vec<Given>,
    teardowns: Vec<Teardown>,
    /// Which of the commands have their standard error in the pipe.
    errors: Vec<bool>,
    stdin: Stdio,
    stdout: Stdio,
    fed: bool,
    tethered: bool,
    drain: Option<Duration>,
}

/// A command, as it was given.
struct Given {
    argv: Vec<u8>,
    directory: Option<CString>,
    changes: Changes,
    stderr: Stdio,
}

impl Given {
    fn command(self, inherited: &Inherited) -> Result<exile_os::Command, Errno> {
        let mut argv = strings(parts(&self.argv))?.into_iter();
        let program = argv.next().ok_or(Errno::EINVAL)?;
        let env = inherited.changed(&self.changes)?;
        let command = exile_os::Command::new(program, argv, env, inherited.path());
        let command = command.directory(self.directory);
        Ok(command.stdio(Stdio::Pipe, Stdio::Pipe, self.stderr))
    }
}

impl Job {
    fn run(mut self, request: &Handle<Request>) {
        if request.is_over() {
            return;
        }
        let stdin = std::mem::take(&mut self.stdin);
        let stdout = std::mem::take(&mut self.stdout);
        let guards = guard::connections();
        let made = self
            .take_commands()
            .and_then(|commands| spawn_pipeline(commands, stdin, stdout, &request.attempt));
        let Some(wait) = request.over(Caller::THREAD) else {
            // Given up in the meantime.
            if let Ok(pipeline) = made {
                discard(&pipeline.children);
            }
            return;
        };
        let answer = match made {
            Ok(pipeline) => {
                let children = pipeline.children.clone();
                let running = self.serve(pipeline);
                // A new guard is told of all that live. If these did not yet, it is counted by now.
                if guard::connections() != guards {
                    children.iter().for_each(guard::report);
                }
                running
            }
            Err(failure) => Err(failure),
        };
        wait.answer(Caller::THREAD, |env| match answer {
            Ok(running) => (atoms::ok(), running).encode(env),
            Err((index, error)) => encode::spawn_error(env, index, error),
        });
    }

    fn take_commands(&mut self) -> Result<Vec<exile_os::Command>, (usize, SpawnError)> {
        let step = Step::Exec;
        std::mem::take(&mut self.commands)
            .into_iter()
            .enumerate()
            .map(|(index, given)| {
                let command = given.command(&self.inherited);
                command.map_err(|errno| (index, SpawnError { step, errno }))
            })
            .collect()
    }

    /// Makes running commands known to the VM. Their lives come first: once the owner is watched,
    /// all of them end with it, and then their pipes may be closed.
    fn serve(self, pipeline: Pipeline) -> Result<Running, (usize, SpawnError)> {
        let caller = Caller::THREAD;
        // A process that ends soon gives its exit fd back.
        let ends = pipeline.children.iter().map(|child| child.end());
        let ends = self.drain.map(|drain| (ends.collect(), drain));
        let lives = begin_all(pipeline.children, self.teardowns, self.owner)?;
        for life in &lives {
            life.kin().join(&lives);
        }
        if let Some((ends, drain)) = ends {
            bound_drains(&lives, ends, drain);
        }
        let processes = lives
            .iter()
            .map(|life| Handle::of(caller, Arc::clone(life), self.owner))
            .collect();
        let question = Question::default();
        let open = |fd, lives: Vec<&Arc<Life>>, ends: Ends| {
            let pipe = Handle::open(fd, self.owner, lives.len(), question.clone(), ends);
            for life in lives {
                life.kin().attach(caller, &pipe);
            }
            let pipe: Handle<Pipe> = pipe;
            pipe.set_owner(caller, self.owner);
            pipe.grip()
        };
        let ends = |all| Ends {
            lives: lives.iter().map(Arc::downgrade).collect(),
            all,
        };
        let first = lives.first().into_iter().collect();
        let last = lives.last().into_iter().collect();
        let errors = lives.iter().zip(&self.errors);
        let errors = errors
            .filter_map(|(life, pipe)| pipe.then_some(life))
            .collect();
        Ok(Running {
            processes,
            stdin: pipeline
                .stdin
                .map(|end| open(Fd::Write(end), first, ends(self.fed))),
            stdout: pipeline
                .stdout
                .map(|end| open(Fd::Read(end), last, ends(false))),
            stderr: pipeline
                .stderr
                .map(|end| open(Fd::Read(end), errors, ends(false))),
            tether: self.tethered.then(|| Handle::to(lives.clone())),
        })
    }
}

/// If the end of one cannot be watched for, all are ended.
fn begin_all(
    children: Vec<Arc<Child>>,
    teardowns: Vec<Teardown>,
    owner: Pid,
) -> Result<Vec<Arc<Life>>, (usize, SpawnError)> {
    let mut lives = Vec::with_capacity(children.len());
    let mut failure = None;
    for (index, (child, teardown)) in children.into_iter().zip(teardowns).enumerate() {
        match Life::begin(child, teardown, Bonds::new(owner)) {
            Ok(life) => lives.push(life),
            Err(errno) => failure = failure.or(Some((index, errno))),
        }
    }
    match failure {
        None => Ok(lives),
        Some((index, errno)) => {
            end_together(lives.into_iter());
            let step = Step::Watch;
            Err((index, SpawnError { step, errno }))
        }
    }
}

pub(crate) fn c_string(bytes: impl Into<Vec<u8>>) -> NifResult<CString> {
    CString::new(bytes).map_err(|_| Error::BadArg)
}

/// `{:read, path}`, `{:write, path, append?}`, `:pipe`, `:null`, `:inherit` or `:stdout`.
fn decode_stdio(plan: Term<'_>) -> NifResult<Stdio> {
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
