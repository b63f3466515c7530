//! Bytes go through real programs and come back, however they are split.
//!
//! Tests run one at a time: until a new process executes its program, it holds a copy of every pipe
//! end that is open here, which delays end-of-file.

mod common;

use std::io::IoSlice;
use std::os::fd::AsRawFd;

use common::{
    PATIENCE, becomes_readable, becomes_writable, command, line, one_at_a_time, read_some,
    read_to_end, sh, spawn, status,
};
use exile_os::pipe::set_capacity;
use exile_os::pipe::{DEFAULT_CAPACITY, GROWN_CAPACITY, MAX_SLICES, ReadEnd, WriteEnd};
use exile_os::{Errno, Status};

/// Pseudo-random numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // Knuth's MMIX generator; the high bits are the better ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn some_bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 + n / 251) as u8).collect()
}

/// Writes `bytes` in slices of random lengths, and reads them back in random lengths.
fn there_and_back(random: &mut Random, ends: (WriteEnd, &ReadEnd), bytes: &[u8], longest: usize) {
    let (input, output) = ends;
    let mut input = Some(input);
    let (mut written, mut back) = (0, Vec::new());
    loop {
        if let Some(end) = &input {
            let mut slices = Vec::new();
            let mut at = written;
            for _ in 0..random.below(8) {
                let length = random.below(longest).min(bytes.len() - at);
                slices.push(IoSlice::new(&bytes[at..at + length]));
                at += length;
            }
            match end.write(&slices).unwrap() {
                Some(count) => written += count,
                None => assert!(written > back.len(), "a pipe with nothing in it is full"),
            }
            if written == bytes.len() {
                input = None;
            }
        }
        let mut buffer = vec![0; 1 + random.below(longest)];
        match output.read_into(&mut buffer).unwrap() {
            Some(0) => break,
            Some(count) => back.extend_from_slice(&buffer[..count]),
            None if input.is_some() => {}
            None => assert!(becomes_readable(output.as_raw_fd(), PATIENCE)),
        }
    }
    assert_eq!(written, bytes.len());
    assert!(
        back == bytes,
        "{} bytes of {} came back",
        back.len(),
        written
    );
}

#[test]
fn bytes_come_back_however_they_are_split() {
    let _one = one_at_a_time();
    let mut random = Random(42);
    let bytes = some_bytes(300_000);
    for longest in [1_000, 5_000, 70_000, 300_000] {
        for _ in 0..5 {
            let mut cat = spawn(&command("cat", &[]));
            let ends = (cat.stdin.take().unwrap(), cat.stdout.as_ref().unwrap());
            there_and_back(&mut random, ends, &bytes, longest);
            assert_eq!(status(&cat.child), Status::Exited(0));
        }
    }
}

#[test]
fn single_bytes_come_back() {
    let _one = one_at_a_time();
    let mut random = Random(7);
    let mut cat = spawn(&command("cat", &[]));
    let ends = (cat.stdin.take().unwrap(), cat.stdout.as_ref().unwrap());
    there_and_back(&mut random, ends, &some_bytes(2_000), 2);
}

#[test]
fn a_write_of_nothing_writes_nothing() {
    let _one = one_at_a_time();
    let cat = spawn(&command("cat", &[]));
    let stdin = cat.stdin.as_ref().unwrap();
    assert_eq!(stdin.write(&[]), Ok(Some(0)));
    assert_eq!(stdin.write(&[IoSlice::new(b"")]), Ok(Some(0)));
    assert_eq!(cat.stdout.as_ref().unwrap().read_into(&mut [0]), Ok(None));
}

#[test]
fn a_write_to_a_program_that_closed_its_input_is_epipe() {
    let _one = one_at_a_time();
    let spawned = spawn(&sh("exec <&-; echo closed; exec sleep 1000"));
    line(spawned.stdout.as_ref().unwrap());
    let stdin = spawned.stdin.unwrap();
    assert_eq!(stdin.write(&[IoSlice::new(b"x")]), Err(Errno::EPIPE));
    assert_eq!(stdin.write(&[IoSlice::new(b"x")]), Err(Errno::EPIPE));
}

#[test]
fn a_waiting_writer_wakes_when_the_program_exits() {
    let _one = one_at_a_time();
    let spawned = spawn(&sh("echo ready; read x; exit 0"));
    line(spawned.stdout.as_ref().unwrap());
    let stdin = spawned.stdin.unwrap();
    let big = vec![0; DEFAULT_CAPACITY];
    while let Ok(Some(_)) = stdin.write(&[IoSlice::new(&big)]) {}
    assert!(spawned.child.signal(exile_os::Signal::KILL).is_ok());
    status(&spawned.child);
    assert!(becomes_writable(stdin.as_raw_fd(), PATIENCE));
    assert_eq!(stdin.write(&[IoSlice::new(b"x")]), Err(Errno::EPIPE));
}

#[test]
fn output_can_be_read_after_the_program_has_ended() {
    let _one = one_at_a_time();
    let spawned = spawn(&sh("printf last; exit 3"));
    assert_eq!(status(&spawned.child), Status::Exited(3));
    assert_eq!(read_to_end(spawned.stdout.as_ref().unwrap()), b"last");
}

#[test]
fn output_does_not_end_while_a_background_child_holds_it() {
    let _one = one_at_a_time();
    let mut spawned = spawn(&sh("exec 4<&0; (cat <&4; echo late) & exit 0"));
    assert_eq!(status(&spawned.child), Status::Exited(0));
    let stdout = spawned.stdout.as_ref().unwrap();
    assert_eq!(stdout.read_into(&mut [0]), Ok(None));
    drop(spawned.stdin.take());
    assert_eq!(read_to_end(stdout), b"late\n");
}

#[test]
fn a_program_whose_output_is_closed_gets_sigpipe() {
    let _one = one_at_a_time();
    let mut spawned = spawn(&sh("read x; exec yes"));
    drop(spawned.stdout.take());
    drop(spawned.stdin.take());
    let ended = status(&spawned.child);
    let signal = libc::SIGPIPE as u8;
    assert_eq!(
        ended,
        Status::Signaled {
            signal,
            core: false
        }
    );
}

#[test]
fn output_waits_in_the_pipe_until_it_is_read() {
    let _one = one_at_a_time();
    let spawned = spawn(&command("head", &["-c", "10000000", "/dev/zero"]));
    let stdout = spawned.stdout.as_ref().unwrap();
    let first = read_some(stdout).unwrap();
    assert!(first.len() <= DEFAULT_CAPACITY);
    assert_eq!(spawned.child.try_status(), None);
    let rest = read_to_end(stdout);
    assert_eq!(first.len() + rest.len(), 10_000_000);
    assert_eq!(status(&spawned.child), Status::Exited(0));
}

#[test]
fn a_full_pipe_can_grow() {
    let _one = one_at_a_time();
    let mut cat = spawn(&sh("echo ready; exec sleep 1000"));
    line(cat.stdout.as_ref().unwrap());
    let stdin = cat.stdin.take().unwrap();
    let big = vec![7; GROWN_CAPACITY];
    let before = stdin.write(&[IoSlice::new(&big)]).unwrap().unwrap();
    assert_eq!(stdin.write(&[IoSlice::new(&big)]), Ok(None));
    let capacity = set_capacity(&stdin, GROWN_CAPACITY).unwrap();
    let more = stdin.write(&[IoSlice::new(&big)]).unwrap().unwrap();
    assert_eq!(before + more, capacity);
}

#[test]
fn a_capacity_that_no_pipe_can_have_is_an_error() {
    let _one = one_at_a_time();
    let cat = spawn(&command("cat", &[]));
    let stdin = cat.stdin.as_ref().unwrap();
    for bytes in [usize::MAX, libc::c_int::MAX as usize + 1] {
        assert_eq!(set_capacity(stdin, bytes), Err(Errno::EINVAL));
    }
    // The pipe still works.
    assert_eq!(stdin.write(&[IoSlice::new(b"x\n")]), Ok(Some(2)));
    assert_eq!(line(cat.stdout.as_ref().unwrap()), "x");
}

#[test]
fn more_slices_than_the_kernel_takes_arrive_in_order() {
    let _one = one_at_a_time();
    let mut cat = spawn(&command("cat", &[]));
    let stdin = cat.stdin.take().unwrap();
    let bytes = some_bytes(3 * MAX_SLICES + 1);
    let mut written = 0;
    while written < bytes.len() {
        let slices: Vec<IoSlice<'_>> = bytes[written..].chunks(1).map(IoSlice::new).collect();
        let count = stdin.write(&slices).unwrap().unwrap();
        assert_eq!(count, MAX_SLICES.min(slices.len()));
        written += count;
    }
    drop(stdin);
    assert_eq!(read_to_end(cat.stdout.as_ref().unwrap()), bytes);
}
