//! What to run, validated and owned before the first system call. Where its streams go is in
//! `streams`, because a command can be run again, but a descriptor can be given away only once.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use crate::attributes::Attributes;
use crate::errno::Errno;

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/bin:/usr/bin";

/// A program with its arguments and surroundings. Strings are bytes without NUL, as `CString`
/// guarantees.
#[derive(Debug)]
pub struct Command {
    pub(crate) program: CString,
    pub(crate) arguments: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// The files to try, in order, or why there could be no list of them.
    pub(crate) candidates: Result<Vec<CString>, Errno>,
    /// The candidates are what the search path makes of a bare name.
    pub(crate) searched: bool,
    pub(crate) directory: Option<CString>,
    pub(crate) attributes: Attributes,
    pub(crate) detached: bool,
}

impl Command {
    /// The command `program` with `arguments`, in exactly the environment `env` (`NAME=value`
    /// each). A program without a `/` is looked up in the directories of `path`, the `PATH` of
    /// the caller, not that of `env`; with a `/` it is a file name, relative to the directory
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
            Ok(vec![program.clone()])
        };
        Command {
            program,
            arguments: arguments.into_iter().collect(),
            env,
            candidates,
            searched,
            directory: None,
            attributes: Attributes::default(),
            detached: false,
        }
    }

    /// Runs in `directory` instead of the directory of this process. This does not affect the
    /// search path: its relative entries still mean directories of this process.
    pub fn directory(mut self, directory: Option<CString>) -> Command {
        if self.searched && directory.is_some() {
            let here = std::env::current_dir().ok();
            let here = here.as_ref().map(|here| here.as_os_str().as_bytes());
            self.candidates = self.candidates.and_then(|all| absolute(all, here));
        }
        self.directory = directory;
        self
    }

    /// Sets attributes of the process.
    pub fn attributes(mut self, attributes: Attributes) -> Command {
        self.attributes = attributes;
        self
    }

    /// What the program sees as its argument 0.
    pub(crate) fn arg0(&self) -> &CString {
        self.attributes.arg0.as_ref().unwrap_or(&self.program)
    }

    /// Lets the program outlive this process, in a session of its own, and unguarded.
    pub fn detached(mut self) -> Command {
        self.detached = true;
        self
    }
}

/// Whether a program is to be looked up.
fn is_bare(program: &CStr) -> bool {
    !program.is_empty() && !program.to_bytes().contains(&b'/')
}

/// The files to try, in order.
fn candidates(program: &CStr, path: Option<&OsStr>) -> Result<Vec<CString>, Errno> {
    let directories = || {
        path.map_or(DEFAULT_PATH, OsStr::as_bytes)
            .split(|byte| *byte == b':')
    };
    let mut all = with_room(directories().count())?;
    for directory in directories() {
        // An empty entry means the current directory.
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        all.extend(joined(directory, program.to_bytes())?);
    }
    Ok(all)
}

/// The same files by absolute names. Without a current directory, those that are relative to it do
/// not exist.
fn absolute(candidates: Vec<CString>, here: Option<&[u8]>) -> Result<Vec<CString>, Errno> {
    let mut all = with_room(candidates.len())?;
    for candidate in candidates {
        if candidate.to_bytes().starts_with(b"/") {
            all.push(candidate);
        } else if let Some(here) = here {
            all.extend(joined(here, candidate.to_bytes())?);
        }
    }
    Ok(all)
}

/// A file in a directory; `None` for a name that no file can have.
fn joined(directory: &[u8], file: &[u8]) -> Result<Option<CString>, Errno> {
    // With room for the NUL at the end, for which `CString` would allocate again.
    let mut path = with_room(directory.len() + file.len() + 2)?;
    path.extend_from_slice(directory);
    path.push(b'/');
    path.extend_from_slice(file);
    Ok(CString::new(path).ok())
}

/// A vector with room for `count`. The sizes come from the user, so having too little memory is an
/// error, and not the end of this process.
pub(crate) fn with_room<T>(count: usize) -> Result<Vec<T>, Errno> {
    let mut room = Vec::new();
    room.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, path: Option<&str>) -> Vec<String> {
        let program = CString::new(program).unwrap();
        Command::new(program, [], Vec::new(), path.map(OsStr::new))
            .candidates
            .unwrap()
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

    #[test]
    fn with_a_directory_the_entries_of_the_path_mean_what_they_meant_without_it() {
        let command = |path: &str| {
            let program = CString::new("ls").unwrap();
            Command::new(program, [], Vec::new(), Some(OsStr::new(path)))
        };
        let here = std::env::current_dir().unwrap();
        let here = here.to_str().unwrap();
        let expected = [
            "/a/ls".to_owned(),
            format!("{here}/./ls"),
            format!("{here}/b/ls"),
        ]
        .map(|file| CString::new(file).unwrap());
        let elsewhere = Some(CString::new("/tmp").unwrap());
        let command = command("/a::b").directory(elsewhere);
        assert_eq!(command.candidates.unwrap(), expected);
    }

    #[test]
    fn without_a_current_directory_relative_entries_are_nowhere() {
        let all = ["/a/ls", "./ls", "b/ls"].map(|file| CString::new(file).unwrap());
        let left = absolute(all.to_vec(), None);
        assert_eq!(left, Ok(vec![all[0].clone()]));
    }

    #[test]
    fn more_than_there_is_memory_for_is_an_error() {
        assert_eq!(with_room::<u64>(usize::MAX / 16), Err(Errno::ENOMEM));
    }
}
