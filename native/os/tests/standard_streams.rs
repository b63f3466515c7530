//! Where the standard streams of a program go.
//!
//! # Safety
//! Unsafe code here closes and restores the standard streams of a process that only one test uses.
#![allow(unsafe_code)]

mod common;

use std::fs::{self, File};
use std::io::{IoSlice, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};

use common::{TempDir, alone, copy, line, read_to_end, sh, spawn, status};
use exile_os::{Spawned, Status, Stdio};

/// Returns a script that writes the target of the descriptor `number` to the descriptor `on`.
fn tell(number: i32, on: i32) -> String {
    format!("found=$(readlink /proc/$$/fd/{number}); echo $found >&{on}")
}

fn our_own(number: i32) -> String {
    let target = fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
    target.to_str().unwrap().to_owned()
}

#[test]
fn three_pipes_are_three_streams() {
    let script = "echo to stdout; echo to stderr >&2; cat; echo done >&2";
    let mut command = spawn(&sh(script).stdio(Stdio::Pipe, Stdio::Pipe, Stdio::Pipe));
    let stdin = command.stdin.take().unwrap();
    assert_eq!(stdin.write(&[IoSlice::new(b"through")]), Ok(Some(7)));
    drop(stdin);
    assert_eq!(read_to_end(&command.stdout.unwrap()), b"to stdout\nthrough");
    assert_eq!(read_to_end(&command.stderr.unwrap()), b"to stderr\ndone\n");
    assert_eq!(status(&command.child), Status::Exited(0));
}

#[test]
fn only_pipes_have_an_end_in_this_process() {
    let Spawned {
        child,
        stdin,
        stdout,
        stderr,
    } = spawn(&sh("exit 0").stdio(Stdio::Null, Stdio::Inherit, Stdio::Stdout));
    assert!(stdin.is_none() && stdout.is_none() && stderr.is_none());
    assert_eq!(status(&child), Status::Exited(0));
}

#[test]
fn null_reads_as_empty_and_discards_writes() {
    let script = format!("cat && echo gone && echo gone >&2 && {}", tell(1, 1));
    let command = sh(&script).stdio(Stdio::Null, Stdio::Null, Stdio::Null);
    assert_eq!(status(&spawn(&command).child), Status::Exited(0));

    let command = sh(&tell(0, 1)).stdio(Stdio::Null, Stdio::Pipe, Stdio::Null);
    assert_eq!(line(&spawn(&command).stdout.unwrap()), "/dev/null");
    let command = sh(&tell(2, 1)).stdio(Stdio::Null, Stdio::Pipe, Stdio::Null);
    assert_eq!(line(&spawn(&command).stdout.unwrap()), "/dev/null");
}

#[test]
fn inherited_streams_are_those_of_this_process() {
    let command = sh(&tell(0, 1)).stdio(Stdio::Inherit, Stdio::Pipe, Stdio::Null);
    assert_eq!(line(&spawn(&command).stdout.unwrap()), our_own(0));
    let command = sh(&tell(1, 2)).stdio(Stdio::Null, Stdio::Inherit, Stdio::Pipe);
    assert_eq!(line(&spawn(&command).stderr.unwrap()), our_own(1));
    let command = sh(&tell(2, 1)).stdio(Stdio::Null, Stdio::Pipe, Stdio::Inherit);
    assert_eq!(line(&spawn(&command).stdout.unwrap()), our_own(2));
}

#[test]
fn an_open_file_is_used_at_its_position_and_stays_open_here() {
    let temp = TempDir::new();
    let input = temp.file("in", "skipped, then read\n", 0o644);
    let mut input = File::open(input).unwrap();
    input.read_exact(&mut [0; 9]).unwrap();
    let mut out = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(temp.path().join("out"))
        .unwrap();
    let command = sh("cat; echo err >&2").stdio(
        Stdio::Fd(copy(&input)),
        Stdio::Fd(copy(&out)),
        Stdio::Fd(copy(&out)),
    );
    assert_eq!(status(&spawn(&command).child), Status::Exited(0));
    out.rewind().unwrap();
    let mut written = String::new();
    out.read_to_string(&mut written).unwrap();
    assert_eq!(written, "then read\nerr\n");
}

#[test]
fn standard_error_joins_standard_output_in_the_order_of_writing() {
    let script = "echo 1; echo 2 >&2; echo 3; echo 4 >&2";
    let command = sh(script).stdio(Stdio::Null, Stdio::Pipe, Stdio::Stdout);
    let spawned = spawn(&command);
    assert_eq!(read_to_end(&spawned.stdout.unwrap()), b"1\n2\n3\n4\n");

    let temp = TempDir::new();
    let out = File::create(temp.path().join("out")).unwrap();
    let command = sh(script).stdio(Stdio::Null, Stdio::Fd(out.into()), Stdio::Stdout);
    assert_eq!(status(&spawn(&command).child), Status::Exited(0));
    let written = fs::read_to_string(temp.path().join("out")).unwrap();
    assert_eq!(written, "1\n2\n3\n4\n");
}

#[test]
fn the_program_s_ends_of_its_pipes_are_blocking() {
    let script = "grep -h flags /proc/$$/fdinfo/0 /proc/$$/fdinfo/1";
    let spawned = spawn(&sh(script));
    let flags = String::from_utf8(read_to_end(&spawned.stdout.unwrap())).unwrap();
    let flags: Vec<i32> = flags
        .lines()
        .map(|line| i32::from_str_radix(line.split_whitespace().last().unwrap(), 8).unwrap())
        .collect();
    assert_eq!(flags.len(), 2);
    for flags in flags {
        assert_eq!(flags & libc::O_NONBLOCK, 0);
    }
}

/// Closes standard streams of this process, and restores them when dropped.
struct Without(Vec<(i32, OwnedFd)>);

impl Without {
    fn streams(numbers: &[i32]) -> Without {
        Without(
            numbers
                .iter()
                .map(|&number| {
                    // SAFETY: it is a standard stream, and stays open until it is closed below.
                    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
                    let kept = copy(borrowed);
                    // SAFETY: no other thread in this process uses the descriptor.
                    unsafe { libc::close(number) };
                    (number, kept)
                })
                .collect(),
        )
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        for (number, kept) in &self.0 {
            // SAFETY: both are descriptors of this process.
            unsafe { libc::dup2(kept.as_raw_fd(), *number) };
        }
    }
}

#[test]
fn pipes_reach_the_program_even_if_this_process_has_no_standard_streams() {
    alone(
        "pipes_reach_the_program_even_if_this_process_has_no_standard_streams",
        || {
            let streams = Without::streams(&[0, 1, 2]);
            let script = "cat; echo err >&2";
            let mut spawned = spawn(&sh(script).stdio(Stdio::Pipe, Stdio::Pipe, Stdio::Pipe));
            let written = spawned.stdin.take().unwrap().write(&[IoSlice::new(b"in")]);
            let out = read_to_end(&spawned.stdout.unwrap());
            let err = read_to_end(&spawned.stderr.unwrap());
            let status = status(&spawned.child);
            drop(streams);
            assert_eq!(written, Ok(Some(2)));
            assert_eq!((&out[..], &err[..]), (&b"in"[..], &b"err\n"[..]));
            assert_eq!(status, Status::Exited(0));
        },
    );
}

#[test]
fn the_null_device_is_opened_even_if_this_process_has_no_standard_streams() {
    alone(
        "the_null_device_is_opened_even_if_this_process_has_no_standard_streams",
        || {
            let streams = Without::streams(&[0, 1, 2]);
            let script = format!("{}; {}; echo end", tell(0, 1), tell(2, 1));
            let spawned = spawn(&sh(&script).stdio(Stdio::Null, Stdio::Pipe, Stdio::Null));
            let out = read_to_end(&spawned.stdout.unwrap());
            drop(streams);
            assert_eq!(out, b"/dev/null\n/dev/null\nend\n");
        },
    );
}

#[test]
fn an_open_file_may_have_the_number_of_a_standard_stream() {
    alone(
        "an_open_file_may_have_the_number_of_a_standard_stream",
        || {
            let temp = TempDir::new();
            let path = temp.path().join("out");
            // Each number in turn: that of the stream itself, of one replaced before it, and of one
            // replaced after it.
            for number in 0..=2 {
                let streams = Without::streams(&[number]);
                let file = File::create(&path).unwrap();
                let got = file.as_raw_fd();
                let command = sh("cat >&2; echo out").stdio(
                    Stdio::Pipe,
                    Stdio::Fd(file.into()),
                    Stdio::Stdout,
                );
                let mut spawned = spawn(&command);
                let written = spawned.stdin.take().unwrap().write(&[IoSlice::new(b"in ")]);
                let status = status(&spawned.child);
                drop(command);
                drop(streams);
                assert_eq!(got, number);
                assert_eq!(written, Ok(Some(3)));
                assert_eq!(status, Status::Exited(0), "as {number}");
                assert_eq!(
                    fs::read_to_string(&path).unwrap(),
                    "in out\n",
                    "as {number}"
                );
            }
        },
    );
}
