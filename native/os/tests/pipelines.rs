//! Several commands joined by pipes.

mod common;

use common::{TempDir, command, descriptors, one_at_a_time, read_to_end, sh, soon, status};
use exile_os::{Command, Errno, Status, Stdio, Step, spawn_pipeline};

fn run(commands: Vec<Command>, stdin: Stdio) -> (Vec<u8>, Vec<Status>) {
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
fn each_reads_what_the_one_before_it_writes() {
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
fn the_first_sees_end_of_file_when_our_end_of_its_input_is_closed() {
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
fn those_that_want_a_pipe_for_errors_share_one() {
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
fn one_that_cannot_be_run_leaves_nothing_of_the_others() {
    let _guard = one_at_a_time();
    // What is made once is made.
    run(vec![command("true", &[])], Stdio::Null);
    let _ = exile_os::reaper::start();
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
    soon("the others are gone", || {
        exile_os::reaper::under_way() == 0
            && exile_os::child::open_count() == 0
            && descriptors() == before
    });
}

#[test]
fn a_file_is_written_from_its_start_or_from_its_end() {
    let _guard = one_at_a_time();
    let directory = TempDir::new();
    let path = directory.path().join("out");
    for (append, expected) in [(false, "x\n"), (true, "x\nx\n"), (false, "x\n")] {
        let stdout = Stdio::write_to(path.as_os_str(), append).unwrap();
        let pipeline = spawn_pipeline(vec![sh("echo x")], Stdio::Null, stdout).unwrap();
        assert_eq!(status(&pipeline.children[0]), Status::Exited(0));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let refused = Stdio::write_to(fifo.as_os_str(), false).unwrap_err();
    assert_eq!(refused, Errno::new(libc::ENXIO));
}
