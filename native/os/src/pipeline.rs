//! Several commands, each reading what the one before it writes. The pipes between them are the
//! kernel's own affair: this process holds neither end once the commands run.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::command::Command;
use crate::errno::Errno;
use crate::life::child::Child;
use crate::pipe::{self, ReadEnd, WriteEnd};
use crate::spawn::{Attempt, SpawnError, Step, at, discard, open_file, spawn};
use crate::streams::{Stdio, Streams};

/// A command of a pipeline. Its other streams are those of its neighbours.
#[derive(Debug)]
pub struct Stage {
    /// What to run.
    pub command: Command,
    /// Where its errors go.
    pub stderr: Stdio,
}

/// Running commands, and our ends of the pipes to and from them.
#[derive(Debug)]
pub struct Pipeline {
    /// The commands, in their order.
    pub children: Vec<Arc<Child>>,
    /// Writes to the standard input of the first, if that is a pipe.
    pub stdin: Option<WriteEnd>,
    /// Reads the standard output of the last, if that is a pipe.
    pub stdout: Option<ReadEnd>,
    /// Reads the standard error of all for which it is a pipe: one pipe, which they share.
    pub stderr: Option<ReadEnd>,
}

/// Runs the commands of `stages`, the first reading from `stdin`, the last writing to `stdout`. If
/// one of them cannot be run, or the `attempt` is cancelled, the error holds its index, and those before
/// it, which ran already, have been killed with their groups. All files are opened before any command
/// runs, and attributes that this system does not have are refused before that.
pub fn spawn_pipeline(
    mut stages: Vec<Stage>,
    mut stdin: Stdio,
    mut stdout: Stdio,
    attempt: &Attempt,
) -> Result<Pipeline, (usize, SpawnError)> {
    let last = stages.len().saturating_sub(1);
    for (index, stage) in stages.iter().enumerate() {
        stage
            .command
            .attributes
            .check()
            .map_err(|error| (index, error))?;
    }
    if let Some(file) = open_file(&stdin, Step::Input).map_err(|error| (0, error))? {
        stdin = Stdio::Fd(file);
    }
    if let Some(file) = open_file(&stdout, Step::Output).map_err(|error| (last, error))? {
        share_file(&file, &stdout, &mut stages).map_err(|errno| (last, at(Step::Errors)(errno)))?;
        stdout = Stdio::Fd(file);
    }
    open_files_for_errors(&mut stages)?;
    let mut pipeline = Pipeline {
        children: Vec::with_capacity(stages.len()),
        stdin: None,
        stdout: None,
        stderr: None,
    };
    match pipeline.run(stages, stdin, stdout, attempt) {
        Ok(()) => Ok(pipeline),
        Err(error) => {
            let index = pipeline.children.len();
            discard(&pipeline.children);
            Err((index, error))
        }
    }
}

impl Pipeline {
    fn run(
        &mut self,
        stages: Vec<Stage>,
        mut stdin: Stdio,
        stdout: Stdio,
        attempt: &Attempt,
    ) -> Result<(), SpawnError> {
        let last = stages.len().saturating_sub(1);
        let sharing = stages.iter().filter(|stage| stage.wants_pipe()).count();
        let mut shared = None;
        let mut stdout = Some(stdout);
        for (index, mut stage) in stages.into_iter().enumerate() {
            let (theirs, next) = if index < last {
                let (read, write) = pipe::pair().map_err(at(Step::Stdio))?;
                (Stdio::Fd(write), Stdio::Fd(read))
            } else {
                (stdout.take().unwrap_or_default(), Stdio::Null)
            };
            if sharing > 1 && stage.wants_pipe() {
                let theirs = self.share_stderr(&mut shared).map_err(at(Step::Stdio))?;
                stage.stderr = Stdio::Fd(theirs);
            }
            let streams = Streams {
                stdin: std::mem::replace(&mut stdin, next),
                stdout: theirs,
                stderr: stage.stderr,
            };
            let spawned = spawn(&stage.command, &streams, attempt).inspect_err(|_| {
                // This comes before the pipe is closed from which this command would have read. The
                // program that writes to the pipe may end because of that, and its group must end
                // with it.
                discard(&self.children);
            })?;
            self.children.push(spawned.child);
            self.stdin = self.stdin.take().or(spawned.stdin);
            self.stdout = self.stdout.take().or(spawned.stdout);
            self.stderr = self.stderr.take().or(spawned.stderr);
        }
        Ok(())
    }

    /// The end of the shared pipe for one more command; the first makes the pipe.
    fn share_stderr(&mut self, shared: &mut Option<OwnedFd>) -> Result<OwnedFd, Errno> {
        let theirs = match shared.take() {
            Some(theirs) => theirs,
            None => {
                let (ours, theirs) = pipe::output()?;
                self.stderr = Some(ours);
                theirs
            }
        };
        let copy = theirs.try_clone().map_err(Errno::from_io)?;
        *shared = Some(theirs);
        Ok(copy)
    }
}

impl Stage {
    fn wants_pipe(&self) -> bool {
        matches!(self.stderr, Stdio::Pipe)
    }
}

fn open_files_for_errors(stages: &mut [Stage]) -> Result<(), (usize, SpawnError)> {
    let mut rest = stages;
    let mut index = 0;
    while let Some((stage, later)) = rest.split_first_mut() {
        open_file_for_errors(stage, later).map_err(|error| (index, error))?;
        rest = later;
        index += 1;
    }
    Ok(())
}

fn open_file_for_errors(stage: &mut Stage, later: &mut [Stage]) -> Result<(), SpawnError> {
    let Some(file) = open_file(&stage.stderr, Step::Errors)? else {
        return Ok(());
    };
    share_file(&file, &stage.stderr, later).map_err(at(Step::Errors))?;
    stage.stderr = Stdio::Fd(file);
    Ok(())
}

/// Commands that write to the same file share one description of it. Otherwise each would overwrite
/// what the others wrote.
fn share_file(file: &OwnedFd, stdio: &Stdio, stages: &mut [Stage]) -> Result<(), Errno> {
    for stage in stages {
        if is_same_file(&stage.stderr, stdio) {
            stage.stderr = Stdio::Fd(file.try_clone().map_err(Errno::from_io)?);
        }
    }
    Ok(())
}

fn is_same_file(one: &Stdio, other: &Stdio) -> bool {
    match (one, other) {
        (
            Stdio::Write { path, append },
            Stdio::Write {
                path: other_path,
                append: other_append,
            },
        ) => path == other_path && append == other_append,
        _ => false,
    }
}
