//! Starting processes. A spawner does the work and sends the answer as a message. What is to be
//! started is in `spec`.

use std::sync::Arc;

use exile_os::spawn::pool;
use exile_os::{Child, Errno, Pipeline, SpawnError, Stage, Step, Teardown, guard};
use exile_os::{discard, spawn_pipeline};
use rustler::types::atom::Atom;
use rustler::{Encoder, Env, NifMap, NifResult, Term};

use crate::bonds::{Bonds, Ends, Life, end_together};
use crate::drain::bound_drains;
use crate::pipe::{Grip, Pipe};
use crate::pipe_end::Fd;
use crate::process::{Process, teardown};
use crate::question::Question;
use crate::request::{CLOSED, Request};
use crate::resource::Handle;
use crate::spec::{Given, Plan, Spec};
use crate::tether::Tether;
use crate::wait::{Caller, Pid, Wait, pid};
use crate::{atoms, encode};

/// The answer to a spawn.
#[derive(NifMap)]
struct Running {
    processes: Vec<Handle<Process>>,
    stdin: Option<Handle<Grip>>,
    stdout: Option<Handle<Grip>>,
    stderr: Option<Handle<Grip>>,
    tether: Option<Handle<Tether>>,
}

/// Runs commands, each of which reads the output of the one before it. The caller owns them and
/// their pipes, and gets the message `{reference, answer}`: `{:ok, running}` or `{:error,
/// failure}`. Returns the request, with which the caller can give up, or such an error.
#[rustler::nif]
fn spawn<'a>(env: Env<'a>, spec: Spec<'a>, reference: Term<'a>) -> NifResult<Term<'a>> {
    let (plan, stages) = spec.decode()?;
    let mut job = Job {
        owner: pid(env),
        plan,
        commands: Vec::with_capacity(stages.len()),
        teardowns: Vec::with_capacity(stages.len()),
        errors: Vec::with_capacity(stages.len()),
    };
    for (given, steps) in stages {
        job.teardowns.push(teardown(0, steps));
        job.errors.push(given.has_error_pipe());
        job.commands.push(given);
    }
    Ok(submit(env, reference, false, |request| job.run(&request)))
}

/// Has a spawner run `job` for the caller. `apart`: the job starts a program of Exile itself, which
/// is allowed even while other spawns are not.
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
            request.over();
            let step = Step::Clone;
            encode::spawn_error(env, 0, SpawnError { step, errno })
        }
    }
}

/// Makes sure that a request gets an answer, even if its job panics.
struct Answered(Handle<Request>);

impl Drop for Answered {
    fn drop(&mut self) {
        if let Some(wait) = self.0.over() {
            let error = SpawnError {
                step: Step::Clone,
                errno: Errno::ECANCELED,
            };
            wait.answer(Caller::THREAD, |env| encode::spawn_error(env, 0, error));
        }
    }
}

/// Gives up a spawn. `:ok`: no message will come, and the processes being made are killed. `:sent`:
/// the message has been sent.
#[rustler::nif]
fn spawn_cancel(request: Handle<Request>) -> Atom {
    if request.give_up() {
        atoms::ok()
    } else {
        atoms::sent()
    }
}

/// A spawn, as a spawner does it.
struct Job {
    owner: Pid,
    plan: Plan,
    commands: Vec<Given>,
    teardowns: Vec<Teardown>,
    /// Which of the commands write their standard error to the pipe.
    errors: Vec<bool>,
}

impl Job {
    fn run(mut self, request: &Handle<Request>) {
        if request.is_over() {
            return;
        }
        let stdin = std::mem::take(&mut self.plan.stdin);
        let stdout = std::mem::take(&mut self.plan.stdout);
        let guards = guard::connections();
        let made = self
            .take_stages()
            .and_then(|stages| spawn_pipeline(stages, stdin, stdout, &request.attempt));
        let Some(wait) = request.over() else {
            // It was given up in the meantime.
            if let Ok(pipeline) = made {
                discard(&pipeline.children);
            }
            return;
        };
        let answer = match made {
            Ok(pipeline) => {
                let children = pipeline.children.clone();
                let running = self.serve(pipeline);
                // A new guard is told of all processes that live. If it came before these did, it
                // is counted by now.
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

    fn take_stages(&mut self) -> Result<Vec<Stage>, (usize, SpawnError)> {
        let step = Step::Exec;
        std::mem::take(&mut self.commands)
            .into_iter()
            .enumerate()
            .map(|(index, given)| {
                let stage = given.stage(&self.plan.inherited);
                stage.map_err(|errno| (index, SpawnError { step, errno }))
            })
            .collect()
    }

    /// Makes running commands known to the VM. The lives come first: once the owner is watched, all
    /// processes end with it, and only after that may their pipes be closed.
    fn serve(self, pipeline: Pipeline) -> Result<Running, (usize, SpawnError)> {
        let caller = Caller::THREAD;
        // Taken before the lives begin, because a process that ends soon closes its exit fd.
        let ends = pipeline.children.iter().map(|child| child.end());
        let ends = self.plan.drain.map(|drain| (ends.collect(), drain));
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
            let pipe = Handle::open(
                fd,
                self.owner,
                lives.len(),
                question.clone(),
                Box::new(ends),
            );
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
                .map(|end| open(Fd::Write(end), first, ends(self.plan.fed))),
            stdout: pipeline
                .stdout
                .map(|end| open(Fd::Read(end), last, ends(false))),
            stderr: pipeline
                .stderr
                .map(|end| open(Fd::Read(end), errors, ends(false))),
            tether: self.plan.tethered.then(|| Handle::to(lives.clone())),
        })
    }
}

/// Begins all lives. If the exit of one process cannot be watched, all are ended.
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
