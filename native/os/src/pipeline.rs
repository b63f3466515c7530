//! Several commands, each reading what the one before it writes. The pipes between them are the
//! kernel's own affair: this process holds neither end once the commands run.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::life::child::{Child, kill};
use crate::command::{Command, Stdio};
use crate::errno::Errno;
use crate::pipe::{self, ReadEnd, WriteEnd};
use crate::spawn::{SpawnError, Step, spawn};

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

/// Runs `commands`, the first reading from `stdin`, the last writing to `stdout`, whatever they
/// say of these streams themselves. When one of them cannot be run, the error tells its index; those
/// before it, which ran already, are being killed.
pub fn spawn_pipeline(
    commands: Vec<Command>,
    stdin: Stdio,
    stdout: Stdio,
    _attempt: &crate::spawn::Attempt,
) -> Result<Pipeline, (usize, SpawnError)> {
    let mut pipeline = Pipeline {
        children: Vec::with_capacity(commands.len()),
        stdin: None,
        stdout: None,
        stderr: None,
    };
    match pipeline.run(commands, stdin, stdout) {
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
        commands: Vec<Command>,
        mut stdin: Stdio,
        stdout: Stdio,
    ) -> Result<(), SpawnError> {
        let last = commands.len().saturating_sub(1);
        let sharing = commands
            .iter()
            .filter(|command| wants_pipe(command))
            .count();
        let mut shared = None;
        let mut stdout = Some(stdout);
        for (index, mut command) in commands.into_iter().enumerate() {
            command.stdin = stdin;
            (command.stdout, stdin) = if index < last {
                let (read, write) = pipe::pair().map_err(at_stdio)?;
                (Stdio::Fd(write), Stdio::Fd(read))
            } else {
                (stdout.take().unwrap_or_default(), Stdio::Null)
            };
            if sharing > 1 && wants_pipe(&command) {
                let theirs = self.share_stderr(&mut shared).map_err(at_stdio)?;
                command.stderr = Stdio::Fd(theirs);
            }
            let spawned = spawn(&command, &crate::spawn::Attempt)?;
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

/// Kills programs that were spawned and that nobody has been told of.
pub fn discard(children: &[Arc<Child>]) {
    children.iter().for_each(|child| kill(child));
}

fn wants_pipe(command: &Command) -> bool {
    matches!(command.stderr, Stdio::Pipe)
}

fn at_stdio(errno: Errno) -> SpawnError {
    SpawnError {
        step: Step::Stdio,
        errno,
    }
}
