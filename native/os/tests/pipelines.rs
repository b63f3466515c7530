//! Several commands joined by pipes.

mod common;

use common::{
    Run, Stranger, TempDir, c, command, descriptors, has_children, one_at_a_time, quiet_sh,
    read_to_end, sh, soon, status,
};
use exile_os::{Attempt, Errno, Pipeline, SpawnError, Status, Stdio, Step};

fn spawn_pipeline(
    commands: Vec<Run>,
    stdin: Stdio,
    stdout: Stdio,
) -> Result<Pipeline, (usize, SpawnError)> {
    common::spawn_pipeline(commands, stdin, stdout, &Attempt::new())
}

fn run(commands: Vec<Run>, stdin: Stdio) -> (Vec<u8>, Vec<Status>) {
    let pipeline = spawn_pipeline(commands, stdin, Stdio::Pipe).unwrap();
    let output = read_to_end(pipeline.stdout.as_ref().unwrap());
    let statuses = pipeline
        .children
        .iter()
        .map(|child| status(child))
        .collect();
    (output, statuses)
}

#[test]
fn each_command_reads_the_output_of_the_one_before() {
    let _guard = one_at_a_time();
    let commands = vec![
        sh("echo b; echo a; exit 1"),
        command("sort", &[]),
        command("tr", &["a-z", "A-Z"]),
    ];
    let (output, statuses) = run(commands, Stdio::Null);
    assert_eq!(output, b"A\nB\n");
    assert_eq!(
        statuses,
        [Status::Exited(1), Status::Exited(0), Status::Exited(0)]
    );
}

#[test]
fn the_first_command_sees_end_of_file_when_our_end_of_its_input_is_closed() {
    let _guard = one_at_a_time();
    let commands = vec![command("cat", &[]), command("wc", &["-c"])];
    let mut pipeline = spawn_pipeline(commands, Stdio::Pipe, Stdio::Pipe).unwrap();
    let stdin = pipeline.stdin.take().unwrap();
    let slices = [std::io::IoSlice::new(b"hello")];
    assert_eq!(stdin.write(&slices), Ok(Some(5)));
    drop(stdin);
    let output = read_to_end(pipeline.stdout.as_ref().unwrap());
    assert_eq!(String::from_utf8(output).unwrap().trim(), "5");
}

#[test]
fn commands_with_a_pipe_for_errors_share_one() {
    let _guard = one_at_a_time();
    let to_pipe = |script| sh(script).stdio(Stdio::Null, Stdio::Null, Stdio::Pipe);
    let commands = vec![
        to_pipe("echo one >&2"),
        sh("exec 2>&1; cat").stdio(Stdio::Null, Stdio::Null, Stdio::Null),
        to_pipe("cat; echo two >&2"),
    ];
    let pipeline = spawn_pipeline(commands, Stdio::Null, Stdio::Null).unwrap();
    assert!(pipeline.stdout.is_none());
    let errors = String::from_utf8(read_to_end(pipeline.stderr.as_ref().unwrap())).unwrap();
    let mut lines: Vec<_> = errors.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "two"]);
}

#[test]
fn a_command_that_cannot_run_leaves_nothing_of_the_others() {
    let _guard = one_at_a_time();
    // The first run creates everything that is created once and kept.
    run(vec![command("true", &[])], Stdio::Null);
    let before = descriptors();
    for index in 0..3 {
        let mut commands = vec![
            command("sleep", &["60"]),
            command("sleep", &["60"]),
            command("sleep", &["60"]),
        ];
        commands[index] = command("no-such-program", &[]);
        let error = spawn_pipeline(commands, Stdio::Pipe, Stdio::Pipe).unwrap_err();
        assert_eq!(error.0, index);
        assert_eq!(error.1.step, Step::Exec);
        assert_eq!(error.1.errno, Errno::new(libc::ENOENT));
    }
    assert_eq!(exile_os::exit::open_count(), 0);
    assert_eq!(descriptors(), before);
    soon("no zombie is left", || !has_children());
}

#[test]
#[cfg_attr(
    exile_portable,
    ignore = "nothing names the group of a leader that has ended by itself"
)]
fn processes_that_the_others_have_started_end_with_them() {
    let _guard = one_at_a_time();
    let directory = TempDir::new();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // The second command is spawned while the first one's child exists.
    let script = format!(
        "sleep 1000 & exec 3>{}; echo $! >&3; exit 0",
        fifo.display()
    );
    let told = std::thread::spawn(move || std::fs::read_to_string(fifo).unwrap());
    let busy = directory.path().join("busy");
    std::fs::copy("/bin/true", &busy).unwrap();
    // A file that is open for writing cannot be executed. The spawn retries for a while.
    let _writer = std::fs::File::options().append(true).open(&busy).unwrap();
    let commands = vec![quiet_sh(&script), command(&busy, &[])];
    let error = spawn_pipeline(commands, Stdio::Null, Stdio::Null).unwrap_err();
    assert_eq!((error.0, error.1.step), (1, Step::Exec));
    let member = told.join().unwrap();
    if let Some(member) = Stranger::of(&member) {
        assert!(member.ends());
    }
}

#[test]
fn a_file_is_truncated_or_appended_to() {
    let _guard = one_at_a_time();
    let directory = TempDir::new();
    let path = directory.path().join("out");
    for (append, expected) in [(false, "x\n"), (true, "x\nx\n"), (false, "x\n")] {
        let stdout = write_to(&path, append);
        let pipeline = spawn_pipeline(vec![sh("echo x")], Stdio::Null, stdout).unwrap();
        assert_eq!(status(&pipeline.children[0]), Status::Exited(0));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}

fn write_to(path: impl AsRef<std::ffi::OsStr>, append: bool) -> Stdio {
    let path = c(path);
    Stdio::Write { path, append }
}

#[test]
fn a_file_that_cannot_be_opened_fails_before_anything_runs() {
    let _guard = one_at_a_time();
    let directory = TempDir::new();
    let trace = directory.path().join("trace");
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let missing = directory.path().join("missing/file");
    let before = descriptors();
    let errors_to = |path| sh("exit 0").stdio(Stdio::Null, Stdio::Null, write_to(path, false));
    let none = || sh("exit 0").stdio(Stdio::Null, Stdio::Null, Stdio::Null);
    let rows = [
        (
            Stdio::Read(c(&missing)),
            Stdio::Null,
            none(),
            0,
            Step::Input,
            libc::ENOENT,
        ),
        (
            Stdio::Read(c(directory.path())),
            Stdio::Null,
            none(),
            0,
            Step::Input,
            libc::EISDIR,
        ),
        (
            Stdio::Null,
            write_to(&fifo, false),
            none(),
            1,
            Step::Output,
            libc::ENXIO,
        ),
        (
            Stdio::Null,
            write_to(directory.path(), true),
            none(),
            1,
            Step::Output,
            libc::EISDIR,
        ),
        (
            Stdio::Null,
            Stdio::Null,
            errors_to(&missing),
            1,
            Step::Errors,
            libc::ENOENT,
        ),
        (
            Stdio::Null,
            Stdio::Null,
            errors_to(&fifo),
            1,
            Step::Errors,
            libc::ENXIO,
        ),
    ];
    for (stdin, stdout, second, index, step, errno) in rows {
        let first = quiet_sh(&format!("touch {}", trace.display()));
        let error = spawn_pipeline(vec![first, second], stdin, stdout).unwrap_err();
        let errno = Errno::new(errno);
        assert_eq!(error, (index, SpawnError { step, errno }));
        assert_eq!(descriptors(), before);
        assert!(!trace.exists());
    }
}

#[test]
fn commands_that_write_errors_to_one_file_do_not_overwrite_each_other() {
    let _guard = one_at_a_time();
    let directory = TempDir::new();
    let path = directory.path().join("errors");
    let script = "cat; echo some words >&2";
    let commands = (0..3)
        .map(|_| sh(script).stdio(Stdio::Null, Stdio::Null, write_to(&path, false)))
        .collect();
    let pipeline = spawn_pipeline(commands, Stdio::Null, Stdio::Null).unwrap();
    for child in &pipeline.children {
        assert_eq!(status(child), Status::Exited(0));
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, "some words\n".repeat(3));
}

#[test]
fn output_and_errors_that_go_to_one_file_do_not_overwrite_each_other() {
    let _guard = one_at_a_time();
    let directory = TempDir::new();
    let path = directory.path().join("both");
    let first = sh("echo first >&2").stdio(Stdio::Null, Stdio::Null, write_to(&path, false));
    let last = "cat; echo output; echo last >&2";
    let last = sh(last).stdio(Stdio::Null, Stdio::Null, write_to(&path, false));
    let commands = vec![first, last];
    let pipeline = spawn_pipeline(commands, Stdio::Null, write_to(&path, false)).unwrap();
    for child in &pipeline.children {
        assert_eq!(status(child), Status::Exited(0));
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, "first\noutput\nlast\n");
}
