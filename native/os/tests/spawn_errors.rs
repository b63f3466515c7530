//! A program that cannot be run is an error that contains the step and the reason. It leaves
//! nothing behind.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Barrier;

use common::{
    Run, TempDir, alone, c, command, descriptors, has_children, one_at_a_time, quiet_sh, search,
    soon, spawn, status, text,
};
use exile_os::{Command, SpawnError, Status, Stdio, Step, exit};

/// Returns the error of a spawn, and asserts that the spawn left nothing behind.
fn failure(command: &Run) -> (Step, i32) {
    let before = descriptors();
    let SpawnError { step, errno } = common::try_spawn(command).expect_err("it runs");
    assert_eq!(descriptors(), before);
    assert!(!has_children());
    assert_eq!(exit::open_count(), 0);
    (step, errno.raw())
}

/// Returns a command whose program is looked up in `directories`.
fn looked_up(program: &str, directories: &[&Path]) -> Run {
    let path = search(directories);
    Command::new(c(program), [], Vec::new(), Some(&path)).into()
}

#[test]
fn a_missing_program_is_enoent() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    for program in ["/nonexistent", "./nonexistent", "nonexistent-program", ""] {
        let failure = failure(&command(program, &[]));
        assert_eq!(failure, (Step::Exec, libc::ENOENT), "{program:?}");
    }
    let command = looked_up("sh", &[temp.path()]);
    assert_eq!(failure(&command), (Step::Exec, libc::ENOENT));
}

#[test]
fn every_kind_of_stream_is_closed_after_a_failure() {
    let _one = one_at_a_time();
    let all_pipes = command("/nonexistent", &[]).stdio(Stdio::Pipe, Stdio::Pipe, Stdio::Pipe);
    assert_eq!(failure(&all_pipes), (Step::Exec, libc::ENOENT));
    let null = command("/nonexistent", &[]).stdio(Stdio::Null, Stdio::Null, Stdio::Null);
    assert_eq!(failure(&null), (Step::Exec, libc::ENOENT));
    let same = command("/nonexistent", &[]).stdio(Stdio::Inherit, Stdio::Inherit, Stdio::Stdout);
    assert_eq!(failure(&same), (Step::Exec, libc::ENOENT));
}

#[test]
fn a_directory_that_cannot_be_entered_is_distinguished_from_a_missing_program() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let file = temp.file("file", "", 0o644);
    let missing = temp.path().join("missing");
    let command = |directory: &Path| command("/nonexistent", &[]).directory(Some(c(directory)));
    assert_eq!(failure(&command(&missing)), (Step::Directory, libc::ENOENT));
    assert_eq!(failure(&command(&file)), (Step::Directory, libc::ENOTDIR));
    assert_eq!(failure(&command(temp.path())), (Step::Exec, libc::ENOENT));
}

#[test]
fn a_file_that_may_not_be_executed_is_eacces() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let file = temp.file("tool", "#!/bin/sh\n", 0o644);
    assert_eq!(failure(&command(&file, &[])), (Step::Exec, libc::EACCES));
    assert_eq!(
        failure(&looked_up("tool", &[temp.path()])),
        (Step::Exec, libc::EACCES)
    );
}

#[test]
fn a_directory_as_program_is_eacces() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let directory = temp.directory("tool");
    assert_eq!(
        failure(&command(&directory, &[])),
        (Step::Exec, libc::EACCES)
    );
    assert_eq!(
        failure(&looked_up("tool", &[temp.path()])),
        (Step::Exec, libc::EACCES)
    );
}

#[test]
fn a_path_through_a_file_is_enotdir() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let file = temp.file("file", "", 0o755);
    assert_eq!(
        failure(&command(file.join("tool"), &[])),
        (Step::Exec, libc::ENOTDIR)
    );
}

#[test]
fn a_file_in_the_search_path_is_skipped() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let file = temp.file("file", "", 0o755);
    for path in [
        &[&*file][..],
        &[&*file, temp.path()],
        &[temp.path(), &*file],
    ] {
        let failure = failure(&looked_up("tool", path));
        assert_eq!(failure, (Step::Exec, libc::ENOENT), "{path:?}");
    }
}

#[test]
fn a_text_without_an_interpreter_line_is_enoexec() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    for content in ["echo hello\n", ""] {
        let file = temp.file("tool", content, 0o755);
        assert_eq!(failure(&command(&file, &[])), (Step::Exec, libc::ENOEXEC));
    }
}

#[test]
fn a_missing_interpreter_is_enoent() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let file = temp.file("tool", "#!/nonexistent/interpreter\n", 0o755);
    assert_eq!(failure(&command(&file, &[])), (Step::Exec, libc::ENOENT));
}

#[test]
fn arguments_or_an_environment_that_are_too_long_are_e2big() {
    let _one = one_at_a_time();
    // First one string that is too long, then strings that are too long together.
    let long = "x".repeat(32 * 4096);
    assert_eq!(
        failure(&command("/bin/true", &[&long])),
        (Step::Exec, libc::E2BIG)
    );
    let many = vec![c("x".repeat(100_000)); 100];
    let command = Run::from(Command::new(c("/bin/true"), [], many, None));
    assert_eq!(failure(&command), (Step::Exec, libc::E2BIG));
}

#[test]
fn names_that_no_file_can_have_are_an_error() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let long = "x".repeat(300);
    assert_eq!(
        failure(&command(temp.path().join(&long), &[])),
        (Step::Exec, libc::ENAMETOOLONG)
    );
    // In the search path, the name is merely not found in any directory.
    assert_eq!(
        failure(&looked_up(&long, &[temp.path()])),
        (Step::Exec, libc::ENOENT)
    );
    let circle = temp.path().join("circle");
    symlink(&circle, &circle).unwrap();
    assert_eq!(failure(&command(&circle, &[])), (Step::Exec, libc::ELOOP));
}

#[test]
fn the_first_program_of_that_name_in_the_search_path_is_run() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    temp.directory("empty");
    temp.file("first/tool", "#!/bin/sh\necho first\n", 0o755);
    temp.file("second/tool", "#!/bin/sh\necho second\n", 0o755);
    let [empty, first, second] = ["empty", "first", "second"].map(|name| temp.path().join(name));
    let nowhere = Path::new("/nonexistent");
    let run = |path: &[&Path]| text(&looked_up("tool", path));
    assert_eq!(run(&[&first, &second]), "first\n");
    assert_eq!(run(&[&second, &first]), "second\n");
    assert_eq!(run(&[nowhere, &empty, &second]), "second\n");
}

#[test]
fn a_program_that_may_not_be_executed_is_skipped_and_remembered() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    temp.file("barred/tool", "#!/bin/sh\necho barred\n", 0o644);
    temp.directory("directory/tool");
    temp.file("good/tool", "#!/bin/sh\necho good\n", 0o755);
    let [barred, directory, good] =
        ["barred", "directory", "good"].map(|name| temp.path().join(name));
    let nowhere = Path::new("/nonexistent");
    let run = |path: &[&Path]| text(&looked_up("tool", path));
    assert_eq!(run(&[&barred, &good]), "good\n");
    assert_eq!(run(&[&directory, &good]), "good\n");
    assert_eq!(
        failure(&looked_up("tool", &[&barred, nowhere])),
        (Step::Exec, libc::EACCES)
    );
    assert_eq!(
        failure(&looked_up("tool", &[nowhere, &directory, nowhere])),
        (Step::Exec, libc::EACCES)
    );
}

#[test]
fn an_unusable_entry_of_the_search_path_is_skipped() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    temp.file("good/tool", "#!/bin/sh\necho good\n", 0o755);
    let [circle, good] = ["circle", "good"].map(|name| temp.path().join(name));
    symlink(&circle, &circle).unwrap();
    let long = temp.path().join("x".repeat(300));
    let deep = temp.path().join("x/".repeat(3000));
    let file = temp.file("file", "", 0o755);
    for bad in [&circle, &long, &deep, &file] {
        assert_eq!(text(&looked_up("tool", &[bad, &good])), "good\n", "{bad:?}");
        let missing = failure(&looked_up("tool", &[bad]));
        assert_eq!(missing, (Step::Exec, libc::ENOENT), "{bad:?}");
    }
}

#[test]
fn relative_entries_of_the_search_path_are_relative_to_this_process() {
    let _one = one_at_a_time();
    alone(
        "relative_entries_of_the_search_path_are_relative_to_this_process",
        || {
            let temp = TempDir::new();
            temp.file("here/tool", "#!/bin/sh\necho here\n", 0o755);
            temp.file("here/bin/tool", "#!/bin/sh\necho here in bin\n", 0o755);
            temp.file("there/tool", "#!/bin/sh\necho there\n", 0o755);
            temp.file("there/bin/tool", "#!/bin/sh\necho there in bin\n", 0o755);
            let [here, there] = ["here", "there"].map(|name| temp.path().join(name));
            std::env::set_current_dir(&here).unwrap();
            let rows = [
                ("", "here\n"),
                (".", "here\n"),
                (":/nonexistent", "here\n"),
                ("/nonexistent:", "here\n"),
                ("/a::/b", "here\n"),
                ("bin", "here in bin\n"),
                ("nowhere:./bin", "here in bin\n"),
                ("bin:", "here in bin\n"),
            ];
            for directory in [None, Some(c(&there)), Some(c("../there"))] {
                for (path, found) in rows {
                    let command = Run::from(
                        Command::new(c("tool"), [], Vec::new(), Some(OsStr::new(path)))
                            .directory(directory.clone()),
                    );
                    assert_eq!(text(&command), found, "{path:?} {directory:?}");
                }
            }
            // A name with a slash is relative to where the command runs.
            let command = command("./tool", &[]).directory(Some(c(&there)));
            assert_eq!(text(&command), "there\n");
        },
    );
}

#[test]
fn without_a_current_directory_relative_entries_of_the_search_path_are_skipped() {
    let _one = one_at_a_time();
    alone(
        "without_a_current_directory_relative_entries_of_the_search_path_are_skipped",
        || {
            let temp = TempDir::new();
            temp.file("there/tool", "#!/bin/sh\necho there\n", 0o755);
            temp.file("good/tool", "#!/bin/sh\necho good\n", 0o755);
            let gone = temp.directory("gone");
            std::env::set_current_dir(&gone).unwrap();
            fs::remove_dir(&gone).unwrap();
            let [there, good] = ["there", "good"].map(|name| temp.path().join(name));
            let path = search(&[Path::new(""), &good]);
            let command = Run::from(Command::new(c("tool"), [], Vec::new(), Some(&path)));
            assert_eq!(text(&command.directory(Some(c(&there)))), "good\n");
        },
    );
}

#[test]
fn a_program_that_stays_open_for_writing_is_etxtbsy() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let program = temp.path().join("true");
    fs::copy("/bin/true", &program).unwrap();
    let writer = File::options().append(true).open(&program).unwrap();
    assert_eq!(
        failure(&command(&program, &[])),
        (Step::Exec, libc::ETXTBSY)
    );
    drop(writer);
    assert_eq!(
        status(&spawn(&command(&program, &[])).child),
        Status::Exited(0)
    );
}

#[test]
fn a_program_that_is_closed_for_writing_a_moment_later_runs() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let program = temp.path().join("true");
    fs::copy("/bin/true", &program).unwrap();
    let command = command(&program, &[]);
    let writer = File::options().append(true).open(&program).unwrap();
    let before = descriptors().len();
    let together = Barrier::new(2);
    let spawned = std::thread::scope(|scope| {
        scope.spawn(|| {
            together.wait();
            // When the pipes exist, the spawn has begun.
            soon("the spawn begins", || descriptors().len() > before);
            drop(writer);
        });
        together.wait();
        spawn(&command)
    });
    assert_eq!(status(&spawned.child), Status::Exited(0));
}

#[test]
fn after_failures_of_every_kind_a_command_runs() {
    let _one = one_at_a_time();
    let before = descriptors();
    for _ in 0..100 {
        assert!(common::try_spawn(&command("/nonexistent", &[])).is_err());
        assert!(common::try_spawn(&command("/etc", &[])).is_err());
        let nowhere = quiet_sh("").directory(Some(c("/nonexistent")));
        assert!(common::try_spawn(&nowhere).is_err());
    }
    assert_eq!(descriptors(), before);
    assert!(!has_children());
    assert_eq!(status(&spawn(&quiet_sh("exit 7")).child), Status::Exited(7));
}
