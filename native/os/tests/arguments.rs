//! Arguments, environment and directory reach a program byte for byte.

mod common;

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use common::{Run, TempDir, c, command, output, sh, text};
use exile_os::Command;

/// Returns every byte that a C string can hold.
fn all_bytes() -> Vec<u8> {
    (1..=u8::MAX).collect()
}

/// Returns the strings as the kernel shows argument lists and environments: each followed by NUL.
fn with_nul(strings: &[CString]) -> Vec<u8> {
    strings
        .iter()
        .flat_map(|string| string.as_bytes_with_nul())
        .copied()
        .collect()
}

#[test]
fn arguments_arrive_byte_for_byte() {
    let arguments = [
        c("-c"),
        c("cat /proc/$$/cmdline"),
        c(""),
        c("with space"),
        c("two\nlines\n"),
        c("'\"$HOME`\\*?"),
        c(OsStr::from_bytes(&all_bytes())),
        c(OsStr::from_bytes(b"\xff\xfe not utf-8 \xc3")),
        c("x".repeat(100_000)),
        c(""),
    ];
    let command = Run::from(Command::new(
        c("/bin/sh"),
        arguments.clone(),
        Vec::new(),
        None,
    ));
    let expected = [&[c("/bin/sh")], &arguments[..]].concat();
    assert_eq!(output(&command), with_nul(&expected));
}

#[test]
fn argument_0_is_the_name_that_was_given_not_the_file_that_was_found() {
    let command = sh_by_name(&["-c", "cat /proc/$$/cmdline"]);
    let expected = [c("sh"), c("-c"), c("cat /proc/$$/cmdline")];
    assert_eq!(output(&command), with_nul(&expected));
}

fn sh_by_name(arguments: &[&str]) -> Run {
    command("sh", arguments)
}

#[test]
fn the_environment_is_exactly_the_one_given() {
    let env = vec![
        c("B=2"),
        c("A=1"),
        c("EMPTY="),
        c("LINES=one\ntwo"),
        c("EQUALS=a=b=c"),
        c("TWICE=first"),
        c("TWICE=second"),
        c("no equals sign"),
        c(OsStr::from_bytes(&[b"BYTES=", &all_bytes()[..]].concat())),
    ];
    let cat = c("/proc/self/environ");
    let command = Run::from(Command::new(c("/bin/cat"), [cat], env.clone(), None));
    assert_eq!(output(&command), with_nul(&env));
}

#[test]
fn an_empty_environment_is_empty() {
    assert_eq!(output(&command("cat", &["/proc/self/environ"])), b"");
}

#[test]
fn a_command_runs_in_its_directory() {
    let temp = TempDir::new();
    let odd = temp.directory(OsStr::from_bytes(b"odd \xff\n name"));
    let command = command("/bin/pwd", &["-P"]).directory(Some(c(&odd)));
    assert_eq!(
        output(&command),
        [odd.as_os_str().as_bytes(), b"\n"].concat()
    );
}

#[test]
fn a_command_without_a_directory_runs_where_this_process_is() {
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    let expected = format!("{}\n", here.display());
    assert_eq!(text(&command("/bin/pwd", &["-P"])), expected);
}

#[test]
fn a_program_with_a_slash_is_relative_to_the_directory() {
    let temp = TempDir::new();
    temp.file("bin/hello", "#!/bin/sh\necho hello\n", 0o755);
    for program in ["bin/hello", "./bin/hello", "bin/../bin/hello"] {
        let command = command(program, &[]).directory(Some(c(temp.path())));
        assert_eq!(text(&command), "hello\n");
    }
}

#[test]
fn path_in_the_environment_does_not_affect_the_program_lookup() {
    let temp = TempDir::new();
    temp.file("sh", "#!/bin/sh\necho wrong\n", 0o755);
    let env = vec![c(format!("PATH={}", temp.path().display()))];
    let arguments = [c("-c"), c("echo right")];
    let command = Run::from(Command::new(
        c("sh"),
        arguments,
        env,
        Some(OsStr::new("/bin")),
    ));
    assert_eq!(text(&command), "right\n");
}

#[test]
fn a_command_can_be_spawned_again() {
    let command = sh("echo again");
    assert_eq!(text(&command), "again\n");
    assert_eq!(text(&command), "again\n");
}
