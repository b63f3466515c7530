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

mod mask;
mod priority;

use std::ffi::CString;

#[cfg(not(by_clone))]
use crate::errno::Errno;
#[cfg(not(by_clone))]
use crate::spawn::at;
use crate::spawn::{SpawnError, Step};
pub use mask::Umask;
pub use priority::Nice;

/// By default nothing is changed.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// What the program sees as its argument 0, in place of its name in the command.
    pub arg0: Option<CString>,
    /// The share of the processors.
    pub nice: Option<Nice>,
    /// The permissions that new files do not get.
    pub umask: Option<Umask>,
}

const NICE: Step = Step::Attribute("nice");
const UMASK: Step = Step::Attribute("umask");

impl Attributes {
    /// Applies all of them to this process, the child. Returns the first that fails, and its errno.
    #[cfg(by_clone)]
    pub(crate) fn apply(&self) -> Result<(), (Step, i32)> {
        let Attributes {
            arg0: _, // exec passes it on
            nice,
            umask,
        } = self;
        set(NICE, *nice, Nice::apply)?;
        set(UMASK, *umask, Umask::apply)
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
        } = self;
        refuse(NICE, nice.is_some())?;
        refuse(UMASK, umask.is_some())
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
