//! What to run: everything a spawn needs, validated and owned before the first system call.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::errno::Errno;
use crate::pipe::above_standard;

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/bin:/usr/bin";

/// One of a program's standard streams.
#[derive(Debug, Default)]
pub enum Stdio {
    /// A new pipe; our end comes back in [`Spawned`](crate::Spawned).
    #[default]
    Pipe,
    /// The null device.
    Null,
    /// This process's own stream.
    Inherit,
    /// An open file or pipe end of somebody else.
    Fd(OwnedFd),
    /// For standard error only: wherever standard output goes.
    Stdout,
    Read(CString),
    Write { path: CString, append: bool },
}

impl Stdio {
    /// The file `path`, opened for reading. A FIFO that nobody writes to is not waited for: the
    /// program sees an empty one.
    pub fn read_from(path: &OsStr) -> Result<Stdio, Errno> {
        let file = open(OpenOptions::new().read(true), path)?;
        if file.metadata().map_err(Errno::from_io)?.is_dir() {
            return Err(Errno::EISDIR);
        }
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(Stdio::Fd(above_standard(file.into())?))
    }

    /// The file `path`, opened for writing: made if it is missing, and emptied, or written to at
    /// its end with `append`. A FIFO that nobody reads is not waited for: `ENXIO`.
    pub fn write_to(path: &OsStr, append: bool) -> Result<Stdio, Errno> {
        let mut options = OpenOptions::new();
        options.create(true).write(true);
        let (options, flags) = if append {
            (options.append(true), OFlag::O_APPEND)
        } else {
            (options.truncate(true), OFlag::empty())
        };
        let file = open(options, path)?;
        fcntl(&file, FcntlArg::F_SETFL(flags))?;
        Ok(Stdio::Fd(above_standard(file.into())?))
    }
}

/// Opens a file without waiting for whoever is at the other end of a FIFO.
fn open(options: &mut OpenOptions, path: &OsStr) -> Result<File, Errno> {
    options
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(Errno::from_io)
}

/// A program with its arguments and surroundings. Strings are bytes without NUL, as `CString`
/// guarantees.
#[derive(Debug)]
pub struct Command {
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) candidates: Vec<CString>,
    /// The candidates are what the search path makes of a bare name.
    pub(crate) searched: bool,
    pub(crate) directory: Option<CString>,
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
    pub(crate) detached: bool,
}

impl Command {
    /// The command `program` with `arguments`, in exactly the environment `env` (`NAME=value`
    /// each). A program without a `/` is looked up in the directories of `path`, the `PATH` of
    /// whoever asks, not that of `env`; with a `/` it is a file name, relative to the directory
    /// that the command runs in.
    pub fn new(
        program: CString,
        arguments: impl IntoIterator<Item = CString>,
        env: Vec<CString>,
        path: Option<&OsStr>,
    ) -> Command {
        let searched = is_bare(&program);
        let candidates = if searched {
            candidates(&program, path)
        } else {
            vec![program.clone()]
        };
        let mut argv = vec![program];
        argv.extend(arguments);
        Command {
            argv,
            env,
            candidates,
            searched,
            directory: None,
            stdin: Stdio::Pipe,
            stdout: Stdio::Pipe,
            stderr: Stdio::Inherit,
            detached: false,
        }
    }

    /// Runs in `directory` instead of where this process is.
    pub fn directory(mut self, directory: Option<CString>) -> Command {
        self.directory = directory;
        self
    }

    /// Lets the program outlive this process, in a session of its own, and unguarded.
    pub fn detached(mut self) -> Command {
        self.detached = true;
        self
    }

    /// Replaces the standard streams: pipes for input and output, this process's own for errors.
    pub fn stdio(mut self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Command {
        self.stdin = stdin;
        self.stdout = stdout;
        self.stderr = stderr;
        self
    }
}

/// Whether a program is to be looked up.
fn is_bare(program: &CStr) -> bool {
    !program.is_empty() && !program.to_bytes().contains(&b'/')
}

/// The files to try, in order.
fn candidates(program: &CStr, path: Option<&OsStr>) -> Vec<CString> {
    let name = program.to_bytes();
    path.map_or(DEFAULT_PATH, OsStr::as_bytes)
        .split(|byte| *byte == b':')
        .filter_map(|directory| {
            // An empty entry means the current directory.
            let directory = if directory.is_empty() {
                b"."
            } else {
                directory
            };
            CString::new([directory, b"/", name].concat()).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, path: Option<&str>) -> Vec<String> {
        let program = CString::new(program).unwrap();
        Command::new(program, [], Vec::new(), path.map(OsStr::new))
            .candidates
            .into_iter()
            .map(|file| file.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_bare_name_is_looked_up_in_every_directory_of_the_path() {
        assert_eq!(found("ls", Some("/a:/b")), ["/a/ls", "/b/ls"]);
        assert_eq!(found("ls", Some("/a::/b")), ["/a/ls", "./ls", "/b/ls"]);
    }

    #[test]
    fn without_a_path_the_usual_places_are_searched() {
        assert!(found("ls", None).contains(&"/bin/ls".to_owned()));
    }

    #[test]
    fn a_name_with_a_slash_is_a_file() {
        assert_eq!(found("./ls", Some("/a")), ["./ls"]);
        assert_eq!(found("/bin/ls", Some("/a")), ["/bin/ls"]);
    }
}
