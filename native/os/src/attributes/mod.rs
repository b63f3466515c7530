//! What options change about a new process. Each is applied between clone and exec, and has its own
//! name in errors. If one cannot be applied, that is an error, and the program does not run.
//!
//! A new attribute is a file here, a field, and a line in each of the two functions below. They
//! name every field, so that the compiler notices one that was forgotten. Between clone and exec
//! only system calls are allowed: no allocation, no lock, no panic. Whatever needs more is prepared
//! when the field gets its value.
//!
//! `posix_spawn` runs no code of ours in the new process, so attributes are refused there by their
//! names.

mod io_priority;
mod limits;
mod mask;
mod priority;
#[cfg(by_clone)]
mod privileges;
mod processors;

use std::ffi::CString;

#[cfg(not(by_clone))]
use crate::errno::Errno;
#[cfg(not(by_clone))]
use crate::spawn::at;
use crate::spawn::{SpawnError, Step};
pub use io_priority::IoPriority;
pub use limits::Limit;
pub use mask::Umask;
pub use priority::Nice;
pub use processors::Cpus;

/// By default nothing is changed.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// What the program sees as its argument 0, in place of its name in the command.
    pub arg0: Option<CString>,
    /// The share of the processors.
    pub nice: Option<Nice>,
    /// The permissions that new files do not get.
    pub umask: Option<Umask>,
    /// The processors that it may run on.
    pub cpus: Option<Cpus>,
    /// The share of the disks.
    pub io_priority: Option<IoPriority>,
    /// The resources that it may use.
    pub limits: Vec<Limit>,
    /// It gains no privileges by what it executes.
    pub no_new_privs: bool,
}

const NICE: Step = Step::Attribute("nice");
const UMASK: Step = Step::Attribute("umask");
const CPUS: Step = Step::Attribute("cpus");
const IO_PRIORITY: Step = Step::Attribute("io_priority");
const LIMITS: Step = Step::Attribute("limits");
const NO_NEW_PRIVS: Step = Step::Attribute("no_new_privs");

impl Attributes {
    /// Applies all of them to this process, the child. Returns the first that fails, and its errno.
    #[cfg(by_clone)]
    pub(crate) fn apply(&self) -> Result<(), (Step, i32)> {
        let Attributes {
            arg0: _, // exec passes it on
            nice,
            umask,
            cpus,
            io_priority,
            limits,
            no_new_privs,
        } = self;
        set(NICE, *nice, Nice::apply)?;
        set(UMASK, *umask, Umask::apply)?;
        set(CPUS, *cpus, Cpus::apply)?;
        set(IO_PRIORITY, *io_priority, IoPriority::apply)?;
        for limit in limits {
            set(LIMITS, Some(limit), Limit::apply)?;
        }
        let gain_none = no_new_privs.then_some(());
        set(NO_NEW_PRIVS, gain_none, |()| privileges::gain_none())
    }

    /// Whether they can be applied on this system. The caller checks this before it opens or runs
    /// anything.
    #[cfg(by_clone)]
    pub(crate) fn check(&self) -> Result<(), SpawnError> {
        Ok(())
    }

    /// Refuses the first that needs code of ours in the new process. The caller checks this before
    /// it opens or runs anything.
    #[cfg(not(by_clone))]
    pub(crate) fn check(&self) -> Result<(), SpawnError> {
        let Attributes {
            arg0: _, // posix_spawn passes it on
            nice,
            umask,
            cpus,
            io_priority,
            limits,
            no_new_privs,
        } = self;
        refuse(NICE, nice.is_some())?;
        refuse(UMASK, umask.is_some())?;
        refuse(CPUS, cpus.is_some())?;
        refuse(IO_PRIORITY, io_priority.is_some())?;
        refuse(LIMITS, !limits.is_empty())?;
        refuse(NO_NEW_PRIVS, *no_new_privs)
    }
}

#[cfg(by_clone)]
fn set<T>(
    step: Step,
    value: Option<T>,
    apply: impl FnOnce(T) -> Result<(), i32>,
) -> Result<(), (Step, i32)> {
    match value {
        Some(value) => apply(value).map_err(|errno| (step, errno)),
        None => Ok(()),
    }
}

#[cfg(not(by_clone))]
fn refuse(step: Step, is_set: bool) -> Result<(), SpawnError> {
    if is_set {
        Err(at(step)(Errno::new(libc::ENOTSUP)))
    } else {
        Ok(())
    }
}
