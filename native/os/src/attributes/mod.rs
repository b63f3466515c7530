//! What options change about a new process: each is applied between clone and exec, and each has a
//! name of its own in errors. What cannot be applied is an error, and the program does not run.
//!
//! A new attribute is a file here, a field, and a line in each of the two functions below. Between
//! clone and exec there may be system calls only: no allocation, no lock, no panic. What needs more
//! is prepared when the field gets its value.
//!
//! `posix_spawn` runs no code of ours in the new process, so it refuses attributes by their names.

#[cfg(by_clone)]
mod mask;
#[cfg(by_clone)]
mod priority;

use std::ffi::CString;

use crate::spawn::Step;

/// By default nothing is changed.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// What the program sees as its argument 0, in place of its name in the command.
    pub arg0: Option<CString>,
    /// The nice value, -20 to 19.
    pub nice: Option<i32>,
    /// The permissions that new files do not get.
    pub umask: Option<u32>,
}

const NICE: Step = Step::Attribute("nice");
const UMASK: Step = Step::Attribute("umask");

impl Attributes {
    /// Applies all of them to this process, the child. Comes back with the first that fails, and its
    /// errno.
    #[cfg(by_clone)]
    pub(crate) fn apply(&self) -> Result<(), (Step, i32)> {
        set(NICE, self.nice, priority::set_nice)?;
        set(UMASK, self.umask, mask::set_umask)
    }

    /// The first that takes code of ours in the new process.
    #[cfg(not(by_clone))]
    pub(crate) fn applied_by_child(&self) -> Option<Step> {
        let nice = self.nice.map(|_| NICE);
        nice.or(self.umask.map(|_| UMASK))
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
