//! What belongs to a process in the VM: its owner, its pipes, and those that wait for its end.

use std::sync::{Arc, PoisonError, Weak};

use exile_os::life::living;
use exile_os::sync::{Mutex, MutexGuard};
use exile_os::{Errno, Kin};

use crate::pipe::{Dependants, Pipe};
use crate::resource::Handle;
use crate::wait::{Caller, Pid, Wait};
use crate::watch::Monitor;

/// The record of a process.
pub(crate) type Life = exile_os::Life<Bonds>;

/// What is called when a process has ended.
type Hook = Box<dyn FnOnce() + Send>;

/// What belongs to a process in the VM.
pub(crate) struct Bonds(Mutex<State>);

struct State {
    owner: Pid,
    /// Watches the owner until the process has ended, and keeps the resource until then.
    monitor: Option<Monitor>,
    pipes: Vec<Handle<Pipe>>,
    /// All processes of its pipeline, itself included.
    pipeline: Vec<Weak<Life>>,
    waits: Vec<(Until, Wait)>,
    ended: bool,
    /// A teardown is under way.
    claimed: bool,
    /// Why the last teardown ended nothing.
    refused: Option<Errno>,
    hooks: Vec<Hook>,
}

/// What a process of the VM waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The process has ended.
    Exit,
    /// It has ended, or may not be signalled.
    Exhausted,
    /// It has ended and no teardown is under way, so that nobody is left of its group, or it may not
    /// be signalled.
    Over,
}

/// What an owner that died has left.
pub(crate) struct Left {
    pub(crate) pipes: Vec<Handle<Pipe>>,
    /// All processes of the pipeline.
    pub(crate) pipeline: Vec<Weak<Life>>,
}

impl State {
    fn has_come(&self, until: Until) -> bool {
        match until {
            Until::Exit => self.ended,
            Until::Exhausted => self.ended || self.refused.is_some(),
            Until::Over => !self.claimed && (self.ended || self.refused.is_some()),
        }
    }

    /// Takes the waits that have come to their end.
    fn take_waits(&mut self) -> Vec<Wait> {
        let all = std::mem::take(&mut self.waits);
        let (over, kept) = all
            .into_iter()
            .partition(|(until, _)| self.has_come(*until));
        self.waits = kept;
        over.into_iter()
            .map(|(_, wait): (Until, Wait)| wait)
            .collect()
    }
}

impl Bonds {
    pub(crate) fn new(owner: Pid) -> Bonds {
        Bonds(Mutex::new(State {
            owner,
            monitor: None,
            pipes: Vec::new(),
            pipeline: Vec::new(),
            waits: Vec::new(),
            ended: false,
            claimed: false,
            refused: None,
            hooks: Vec::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if it did, the state would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `pid` the owner, whose death `monitor` watches for, unless the process has ended. The old
    /// owner's monitor and whether `pid` is alive.
    pub(crate) fn set_owner(
        &self,
        pid: Pid,
        monitor: impl FnOnce() -> Option<Monitor>,
    ) -> Option<(Option<Monitor>, bool)> {
        // Under the lock, so that an owner that dies meanwhile is found to be the owner.
        let mut state = self.lock();
        state.owner = pid;
        if state.ended {
            return None;
        }
        let monitor = monitor();
        let alive = monitor.is_some();
        Some((std::mem::replace(&mut state.monitor, monitor), alive))
    }

    /// What `pid`, which died, has left if the process still belonged to it.
    pub(crate) fn owner_died(&self, pid: Pid) -> Option<Left> {
        let mut state = self.lock();
        if state.owner != pid {
            // It has been handed on.
            return None;
        }
        let monitor = state.monitor.take();
        let left = Left {
            pipes: state.pipes.clone(),
            pipeline: state.pipeline.clone(),
        };
        drop(state);
        drop(monitor);
        Some(left)
    }

    pub(crate) fn is_owner(&self, pid: Pid) -> bool {
        self.lock().owner == pid
    }

    /// Makes it one of the processes of a pipeline.
    pub(crate) fn join(&self, pipeline: &[Arc<Life>]) {
        self.lock().pipeline = pipeline.iter().map(Arc::downgrade).collect();
    }

    /// Has a pipe told when the process has ended.
    pub(crate) fn attach(&self, caller: Caller, pipe: &Handle<Pipe>) {
        {
            let mut state = self.lock();
            if !state.ended {
                state.pipes.push(pipe.clone());
                return;
            }
        }
        pipe.process_ended(caller);
    }

    /// Calls `hook` when the process has ended.
    pub(crate) fn when_ended(&self, hook: impl FnOnce() + Send + 'static) {
        {
            let mut state = self.lock();
            if !state.ended {
                state.hooks.push(Box::new(hook));
                return;
            }
        }
        hook();
    }

    /// Enters a wait, unless what it waits for has come: the end, or else why it may not be signalled.
    pub(crate) fn enter(&self, until: Until, wait: Wait) -> Result<(), Option<Errno>> {
        let mut state = self.lock();
        if state.has_come(until) {
            // Under the lock: the next claim takes the refusal back.
            return Err(state.refused.filter(|_| !state.ended));
        }
        state.waits.push((until, wait));
        Ok(())
    }

    /// Gives up waits. `true`: there was one, and its message will not come.
    pub(crate) fn give_up(&self, is_meant: impl Fn(&Wait) -> bool) -> bool {
        let mut state = self.lock();
        let before = state.waits.len();
        state.waits.retain(|(_, wait)| !is_meant(wait));
        state.waits.len() < before
    }
}

/// The processes that are ended when the owner of a pipe dies.
pub(crate) struct Ends {
    pub(crate) lives: Vec<Weak<Life>>,
    /// All of them; else those that the same process owns.
    pub(crate) all: bool,
}

impl Dependants for Ends {
    fn owner_died(&self, pid: Pid, is_owner: bool) {
        let all = self.all && is_owner;
        let lives = self.lives.iter().filter_map(Weak::upgrade);
        end_together(lives.filter(|life| all || life.kin().is_owner(pid)));
    }
}

/// Ends processes in their own ways and together.
pub(crate) fn end_together(lives: impl Iterator<Item = Arc<Life>>) {
    let endings: Vec<_> = lives
        .map(|life| {
            let teardown = life.teardown().clone();
            (life, teardown)
        })
        .collect();
    living::end_all(&endings);
}

impl Kin for Bonds {
    type Caller = Caller;
    const KEEPER: Caller = Caller::THREAD;

    fn claimed(&self) {
        let mut state = self.lock();
        state.claimed = true;
        state.refused = None;
    }

    fn ended(&self, caller: Caller) {
        let (pipes, waits, hooks, monitor) = {
            let mut state = self.lock();
            if state.ended {
                return;
            }
            state.ended = true;
            (
                std::mem::take(&mut state.pipes),
                state.take_waits(),
                std::mem::take(&mut state.hooks),
                state.monitor.take(),
            )
        };
        for hook in hooks {
            hook();
        }
        for pipe in pipes {
            pipe.process_ended(caller);
        }
        for wait in waits {
            wait.wake(caller);
        }
        // The resource may go with it.
        drop(monitor);
    }

    fn over(&self, refused: Option<Errno>) {
        let waits = {
            let mut state = self.lock();
            state.claimed = false;
            state.refused = refused;
            state.take_waits()
        };
        for wait in waits {
            wait.wake(Self::KEEPER);
        }
    }
}
