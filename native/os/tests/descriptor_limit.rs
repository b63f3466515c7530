//! A spawn that runs out of descriptors fails with `EMFILE` at whichever step it needs one, leaves
//! nothing behind, and succeeds as soon as enough are free.

mod common;

use std::os::fd::{AsRawFd, OwnedFd};

use common::{
    Run, alone, command, descriptors, has_children, limit, null, quiet_sh, set_limit, spawn, status,
};
use exile_os::{Status, Stdio, Step, life::keeper};

/// Fills the gaps below the highest open descriptor. Returns the fillers and the next number.
fn without_gaps() -> (Vec<OwnedFd>, libc::rlim_t) {
    let mut plugs = Vec::new();
    loop {
        let highest = *descriptors().last().unwrap();
        let plug = null();
        let number = plug.as_raw_fd();
        if number > highest {
            return (plugs, number.unsigned_abs().into());
        }
        plugs.push(plug);
    }
}

/// Spawns with no free descriptor, one, two, and so on until it succeeds. Returns the steps that
/// failed.
fn failures(command: &Run) -> Vec<Step> {
    let (_plugs, next) = without_gaps();
    let before = descriptors();
    let whole = limit(libc::RLIMIT_NOFILE).rlim_cur;
    let mut steps = Vec::new();
    for free in 0.. {
        set_limit(libc::RLIMIT_NOFILE, next + free);
        let spawned = common::try_spawn(command);
        set_limit(libc::RLIMIT_NOFILE, whole);
        match spawned {
            Err(error) => {
                assert_eq!(error.errno.raw(), libc::EMFILE);
                steps.push(error.step);
            }
            Ok(spawned) => {
                assert_eq!(status(&spawned.child), Status::Exited(0));
                break;
            }
        }
        assert_eq!(descriptors(), before, "with {free} free");
        assert!(!has_children(), "with {free} free");
        // With the limit raised, a spawn works at once.
        assert_eq!(status(&spawn(command).child), Status::Exited(0));
        assert_eq!(descriptors(), before);
    }
    steps
}

/// The steps that fail for lack of a descriptor for the process itself: a pidfd, or else two ends
/// of a pipe and, briefly, the directory that lists the descriptors to hide.
const PROCESS: &[Step] = if cfg!(exile_portable) {
    &[Step::Clone, Step::Clone, Step::Prepare]
} else {
    &[Step::Clone]
};

#[test]
fn a_spawn_with_pipes_needs_two_descriptors_for_each_and_some_for_the_process() {
    alone(
        "a_spawn_with_pipes_needs_two_descriptors_for_each_and_some_for_the_process",
        || {
            let command = command("/bin/true", &[]).stdio(Stdio::Pipe, Stdio::Pipe, Stdio::Pipe);
            let expected = [&[Step::Stdio; 6], PROCESS].concat();
            assert_eq!(failures(&command), expected);
        },
    );
}

#[test]
fn a_spawn_with_null_devices_needs_one_descriptor_for_each_and_some_for_the_process() {
    alone(
        "a_spawn_with_null_devices_needs_one_descriptor_for_each_and_some_for_the_process",
        || {
            let expected = [&[Step::Stdio; 3], PROCESS].concat();
            assert_eq!(failures(&quiet_sh("exit 0")), expected);
        },
    );
}

#[test]
fn a_spawn_with_inherited_streams_needs_descriptors_only_for_the_process() {
    alone(
        "a_spawn_with_inherited_streams_needs_descriptors_only_for_the_process",
        || {
            let command =
                command("/bin/true", &[]).stdio(Stdio::Inherit, Stdio::Inherit, Stdio::Stdout);
            assert_eq!(failures(&command), PROCESS);
        },
    );
}

#[test]
fn a_keeper_that_failed_to_start_can_start_later() {
    alone("a_keeper_that_failed_to_start_can_start_later", || {
        let (_plugs, next) = without_gaps();
        let whole = limit(libc::RLIMIT_NOFILE).rlim_cur;
        set_limit(libc::RLIMIT_NOFILE, next);
        let started = keeper::start();
        set_limit(libc::RLIMIT_NOFILE, whole);
        assert_eq!(started.unwrap_err().raw(), libc::EMFILE);
        assert_eq!(keeper::start(), Ok(()));
        let with_waker = descriptors().len();
        assert_eq!(keeper::start(), Ok(()));
        assert_eq!(descriptors().len(), with_waker);
    });
}
