//! Files as standard streams. The thread that spawns opens them.
//!
//! # Safety
//! Unsafe code here redirects standard error and reads and sets the flags of descriptors.
#![allow(unsafe_code)]

mod common;

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::channel;

use common::{
    TempDir, alone, c, copy, descriptors, line, one_at_a_time, read_to_end, sh, spawn, status,
    try_spawn,
};
use exile_os::{SpawnError, Status, Stdio, Step};

#[test]
fn each_stream_can_be_a_file() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let input = temp.file("in", "input\n", 0o644);
    let [out, err] = ["out", "err"].map(|name| temp.file(name, "before\n", 0o644));
    let write = |path, append| Stdio::Write {
        path: c(path),
        append,
    };
    let before = descriptors();
    let command = sh("cat; echo error >&2").stdio(
        Stdio::Read(c(&input)),
        write(&out, false),
        write(&err, true),
    );
    assert_eq!(status(&spawn(&command).child), Status::Exited(0));
    assert_eq!(fs::read_to_string(&out).unwrap(), "input\n");
    assert_eq!(fs::read_to_string(&err).unwrap(), "before\nerror\n");
    assert_eq!(descriptors(), before);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_of_its_stream() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let nowhere = c(temp.path().join("missing/file"));
    let write = || Stdio::Write {
        path: nowhere.clone(),
        append: false,
    };
    let rows = [
        (
            Stdio::Read(nowhere.clone()),
            Stdio::Null,
            Stdio::Null,
            Step::Input,
            libc::ENOENT,
        ),
        (
            Stdio::Read(c(temp.path())),
            Stdio::Null,
            Stdio::Null,
            Step::Input,
            libc::EISDIR,
        ),
        (
            Stdio::Null,
            write(),
            Stdio::Null,
            Step::Output,
            libc::ENOENT,
        ),
        (
            Stdio::Null,
            Stdio::Null,
            write(),
            Step::Errors,
            libc::ENOENT,
        ),
    ];
    let before = descriptors();
    for (stdin, stdout, stderr, step, errno) in rows {
        let error = try_spawn(&sh("exit 0").stdio(stdin, stdout, stderr)).unwrap_err();
        let errno = exile_os::Errno::new(errno);
        assert_eq!(error, SpawnError { step, errno });
        assert_eq!(descriptors(), before);
    }
}

#[test]
fn a_program_gets_its_files_in_blocking_mode() {
    let _one = one_at_a_time();
    let temp = TempDir::new();
    let fifo = temp.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let file = temp.file("file", "", 0o644);
    let script = "grep -h flags /proc/$$/fdinfo/0 /proc/$$/fdinfo/2";
    for input in [&fifo, &file] {
        let append = true;
        let path = c(temp.path().join("err"));
        let command = sh(script).stdio(
            Stdio::Read(c(input)),
            Stdio::Pipe,
            Stdio::Write { path, append },
        );
        let stdout = spawn(&command).stdout.unwrap();
        let flags = String::from_utf8(read_to_end(&stdout)).unwrap();
        let flags: Vec<i32> = flags
            .lines()
            .map(|line| i32::from_str_radix(line.split_whitespace().last().unwrap(), 8).unwrap())
            .map(|flags| flags & (libc::O_NONBLOCK | libc::O_APPEND))
            .collect();
        assert_eq!(flags, [0, libc::O_APPEND]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_spawn_waits_for_a_file_under_a_lease() {
    let _one = one_at_a_time();
    common::disposition_of(libc::SIGIO, libc::SIG_IGN);
    let temp = TempDir::new();
    let path = temp.file("leased", "data\n", 0o644);
    let leased = File::open(&path).unwrap();
    let append = false;
    let out = temp.file("out", "", 0o644);
    let written = Stdio::Write {
        path: c(&out),
        append,
    };
    for (file, stdin, stdout) in [
        (leased, Stdio::Read(c(&path)), Stdio::Pipe),
        (File::open(&out).unwrap(), Stdio::Null, written),
    ] {
        common::lease(&file, libc::F_WRLCK);
        std::thread::scope(|scope| {
            let (sender, receiver) = channel();
            scope.spawn(move || {
                let spawned = spawn(&sh("cat; echo end").stdio(stdin, stdout, Stdio::Null));
                sender
                    .send(spawned.stdout.as_ref().map(read_to_end))
                    .unwrap();
                assert_eq!(status(&spawned.child), Status::Exited(0));
            });
            common::soon("somebody waits", || common::lease_is_being_broken(&file));
            assert!(receiver.try_recv().is_err());
            common::lease(&file, libc::F_UNLCK);
            if let Some(read) = receiver.recv().unwrap() {
                assert_eq!(read, b"data\nend\n");
            }
        });
    }
    assert_eq!(fs::read_to_string(&out).unwrap(), "end\n");
}

/// Returns the two sides of a new terminal.
fn terminal() -> (OwnedFd, OwnedFd) {
    let pty = nix::pty::openpty(None, None).unwrap();
    (pty.master, pty.slave)
}

fn flags(fd: &OwnedFd) -> libc::c_int {
    // SAFETY: the descriptor is open.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_on_standard_error_is_reopened_in_blocking_mode() {
    let _one = one_at_a_time();
    alone(
        "a_terminal_on_standard_error_is_reopened_in_blocking_mode",
        || {
            let (_master, slave) = terminal();
            // SAFETY: 2 is a standard stream; nothing else owns the copy.
            let kept = unsafe { OwnedFd::from_raw_fd(libc::dup(2)) };
            // SAFETY: both are open descriptors of this process. The VM also sets O_NONBLOCK on a
            // terminal.
            unsafe {
                libc::dup2(slave.as_raw_fd(), 2);
                libc::fcntl(2, libc::F_SETFL, flags(&slave) | libc::O_NONBLOCK);
            }
            let script =
                "grep flags /proc/$$/fdinfo/2; readlink /proc/$$/fd/2; tty <&2; ps -o tty= $$";
            let command = sh(script).stdio(Stdio::Null, Stdio::Pipe, Stdio::Inherit);
            let stdout = spawn(&command).stdout.unwrap();
            let [found, name, tty, controlling] = [0; 4].map(|_| line(&stdout));
            let ours = fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
            let nonblocking = flags(&slave) & libc::O_NONBLOCK;
            // SAFETY: as above.
            unsafe { libc::dup2(kept.as_raw_fd(), 2) };
            let found = i32::from_str_radix(found.split_whitespace().last().unwrap(), 8).unwrap();
            assert_eq!(found & (libc::O_NONBLOCK | libc::O_ACCMODE), libc::O_WRONLY);
            assert_eq!(name, ours.to_str().unwrap());
            assert_eq!(tty, name);
            assert_eq!(controlling, "?");
            // Our own descriptor is still non-blocking.
            assert_eq!(nonblocking, libc::O_NONBLOCK);
            drop(copy(&slave));
        },
    );
}
