//! Why a command does not run.

use crate::errno::Errno;

/// What a spawn was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Creating the pipes or opening the null device.
    Stdio,
    /// Opening the file that standard input comes from.
    Input,
    /// Opening the file that standard output goes to.
    Output,
    /// Opening the file that standard error goes to.
    Errors,
    /// Creating the process. A spawn that was cancelled fails here, with `ECANCELED`.
    Clone,
    /// Preparing the new process: its session, its bond to this one, its descriptors.
    Prepare,
    /// Changing to the directory.
    Directory,
    /// Executing the program.
    Exec,
    /// Making the keeper watch for its end.
    Watch,
    /// Applying an attribute, by its name.
    Attribute(&'static str),
}

impl Step {
    /// Its name, for the caller of a spawn.
    pub fn name(self) -> &'static str {
        match self {
            Step::Stdio => "stdio",
            Step::Input => "input",
            Step::Output => "output",
            Step::Errors => "errors",
            Step::Clone => "clone",
            Step::Prepare => "prepare",
            Step::Directory => "directory",
            Step::Exec => "exec",
            Step::Watch => "watch",
            Step::Attribute(name) => name,
        }
    }
}

/// Why a command does not run. Nothing is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// What was being done.
    pub step: Step,
    /// What the system said.
    pub errno: Errno,
}

impl SpawnError {
    /// What a spawn that was cancelled fails with.
    pub const CANCELLED: SpawnError = SpawnError {
        step: Step::Clone,
        errno: Errno::ECANCELED,
    };
}

pub(crate) fn at(step: Step) -> impl Fn(Errno) -> SpawnError {
    move |errno| SpawnError { step, errno }
}
