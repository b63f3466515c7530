//! A program starts with default signals and no extra descriptors, whatever its parent ignores,
//! blocks or has open.
//!
//! # Safety
//! Unsafe code here sets signal masks and dispositions.
#![allow(unsafe_code)]

mod common;

use std::collections::BTreeMap;
#[cfg(not(exile_portable))]
use std::ffi::CString;
use std::fs;
use std::mem::MaybeUninit;
#[cfg(not(exile_portable))]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;

use common::{
    alone, command, descriptors, disposition_of, inheritable, line, null, sh, spawn, text,
};
#[cfg(not(exile_portable))]
use common::{has_children, refuse};
use exile_os::Signal;
use exile_os::exit::{self, Source};
#[cfg(not(exile_portable))]
use exile_os::{Errno, Step};

/// The first real-time signals, which C libraries reserve for themselves.
const HIDDEN_SIGNALS: [libc::c_int; 2] = [32, 33];

fn signals_of(status: &str) -> BTreeMap<&str, u64> {
    status
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .filter(|(name, _)| ["SigBlk", "SigIgn", "SigCgt"].contains(name))
        .map(|(name, set)| (name, u64::from_str_radix(set, 16).unwrap()))
        .collect()
}

/// Returns the signal state that `cat` starts with.
fn signals_of_a_program() -> BTreeMap<String, u64> {
    let status = text(&command("cat", &["/proc/self/status"]));
    signals_of(&status)
        .into_iter()
        .map(|(name, set)| (name.to_owned(), set))
        .collect()
}

fn nothing() -> BTreeMap<String, u64> {
    ["SigBlk", "SigIgn", "SigCgt"]
        .map(|name| (name.to_owned(), 0))
        .into()
}

fn our_signals() -> String {
    // Signal masks are per thread.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    format!("{:?}", signals_of(&status))
}

fn block(signals: &[libc::c_int]) {
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        let done = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
        assert_eq!(done, 0);
    }
}

/// Ignores a signal without going through the C library, which hides some signals.
fn ignore_raw(signal: libc::c_int) {
    // The handler is the first field; all others may be zero.
    let ignore: [u64; 8] = [libc::SIG_IGN as u64, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the kernel reads a sigaction from the array, which is larger than that.
    let done = unsafe {
        let none = ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigaction, signal, ignore.as_ptr(), none, 8)
    };
    assert_eq!(done, 0);
}

extern "C" fn handler(_signal: libc::c_int) {}

#[test]
fn every_signal_has_its_default_and_none_is_blocked() {
    alone("every_signal_has_its_default_and_none_is_blocked", || {
        common::choose_source();
        for signal in (1..=libc::SIGRTMAX()).filter(|signal| !HIDDEN_SIGNALS.contains(signal)) {
            match signal {
                libc::SIGKILL | libc::SIGSTOP => {}
                // Ignoring SIGCHLD would lose the status with this source.
                libc::SIGCHLD if exit::source() != Source::Pidfd => {}
                libc::SIGCHLD => disposition_of(signal, libc::SIG_IGN),
                odd if odd % 2 == 1 => {
                    disposition_of(odd, handler as extern "C" fn(libc::c_int) as usize)
                }
                even => disposition_of(even, libc::SIG_IGN),
            }
        }
        HIDDEN_SIGNALS.into_iter().for_each(ignore_raw);
        block(&[
            libc::SIGTERM,
            libc::SIGCHLD,
            libc::SIGUSR2,
            libc::SIGRTMAX(),
        ]);
        let before = our_signals();
        assert_eq!(signals_of_a_program(), nothing());
        assert_eq!(our_signals(), before, "a spawn changed those of the parent");
        assert!(common::try_spawn(&command("/nonexistent", &[])).is_err());
        assert_eq!(
            our_signals(),
            before,
            "a failure changed those of the parent"
        );
    });
}

#[test]
fn a_program_leads_a_session_and_a_process_group_of_its_own() {
    let spawned = spawn(&sh("ps -o pid=,pgid=,sess=,tty= -p $$; cat"));
    let line = line(spawned.stdout.as_ref().unwrap());
    let pid = spawned.child.pid().to_string();
    let found: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(found, [&pid, &pid, &pid, "?"]);
    assert_eq!(spawned.child.signal(Signal::KILL), Ok(()));
}

/// Opens descriptors that every program would inherit: one low, one high, and `crowd` more.
fn inheritables(crowd: usize) -> Vec<OwnedFd> {
    let null = null();
    let mut all = vec![inheritable(null.as_fd(), 3), inheritable(null.as_fd(), 700)];
    all.extend((0..crowd).map(|_| inheritable(null.as_fd(), 3)));
    all
}

/// Returns the descriptors that a program finds open. The shell opens the directory to list it.
fn descriptors_of_a_program() -> String {
    text(&sh("cd /proc/$$/fd && echo *"))
}

fn shell_s_own() -> &'static str {
    "0 1 2 3\n"
}

#[test]
fn no_descriptor_above_the_standard_streams_reaches_a_program() {
    alone(
        "no_descriptor_above_the_standard_streams_reaches_a_program",
        || {
            let _kept = inheritables(0);
            let before = descriptors();
            assert_eq!(descriptors_of_a_program(), shell_s_own());
            assert_eq!(descriptors(), before);
        },
    );
}

// A child that blocks while it changes its directory must not keep the pipes of others open.
#[cfg(not(exile_portable))]
#[test]
fn descriptors_are_closed_before_the_child_changes_its_directory() {
    let directory = fs::File::open("/").unwrap();
    let number = directory.as_raw_fd();
    let name = CString::new(format!("/proc/self/fd/{number}")).unwrap();
    let there = command("true", &[]).directory(Some(name));
    let error = common::try_spawn(&there).unwrap_err();
    assert_eq!((error.step, error.errno), (Step::Directory, Errno::ENOENT));
}

#[cfg(not(exile_portable))]
#[test]
fn without_close_range_descriptors_are_hidden_one_by_one() {
    alone(
        "without_close_range_descriptors_are_hidden_one_by_one",
        || {
            for errno in [libc::ENOSYS, libc::EPERM] {
                let hidden = std::thread::spawn(move || {
                    refuse(libc::SYS_close_range, None, errno);
                    // More descriptors than one read of the list returns.
                    let _kept = inheritables(500);
                    let before = descriptors();
                    let found = descriptors_of_a_program();
                    (found, descriptors() == before)
                });
                assert_eq!(hidden.join().unwrap(), (shell_s_own().to_owned(), true));
            }
        },
    );
}

// With posix_spawn, how a refusal is reported is up to the C library.
#[cfg(not(exile_portable))]
#[test]
fn a_sandbox_that_refuses_a_step_is_an_error_of_that_step() {
    alone(
        "a_sandbox_that_refuses_a_step_is_an_error_of_that_step",
        || {
            let before = descriptors();
            for (call, step) in [
                (libc::SYS_clone, Step::Clone),
                (libc::SYS_setsid, Step::Prepare),
                (libc::SYS_execve, Step::Exec),
            ] {
                // A filter cannot be removed, so each case runs in its own thread.
                let error = std::thread::spawn(move || {
                    let command = command("/bin/true", &[]);
                    refuse(call, None, libc::EPERM);
                    common::try_spawn(&command).unwrap_err()
                });
                let error = error.join().unwrap();
                assert_eq!((error.step, error.errno.raw()), (step, libc::EPERM));
                assert_eq!(descriptors(), before);
                assert!(!has_children());
            }
        },
    );
}
