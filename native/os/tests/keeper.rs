//! The keeper attends to every program that lives, at the same cost however many there are, and
//! whatever happens to its thread.

mod common;

use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, Relatives, alone, descriptors, has_children, limit, line, no_lives, quiet_sh,
    set_limit, sh, soon, spawn, status,
};
use exile_os::life::{keeper, living};
use exile_os::{Child, Life, Signal, Spawned, Status, Teardown, exit};

fn at_once() -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![],
    }
}

fn begin(child: &Arc<Child>, kin: Relatives) -> Arc<Life<Relatives>> {
    Life::begin(Arc::clone(child), at_once(), kin).unwrap()
}

/// A program that does nothing until it is ended.
fn idle() -> Spawned {
    spawn(&common::command("sleep", &["1000"]).stdio(
        exile_os::Stdio::Null,
        exile_os::Stdio::Null,
        exile_os::Stdio::Null,
    ))
}

/// Nothing is left of any program.
fn nothing_left(before: &[i32]) {
    no_lives();
    assert_eq!(exit::open_count(), 0);
    assert_eq!(descriptors(), before);
    soon("the kernel has forgotten all children", || !has_children());
}

/// The time that this thread's process has spent computing.
fn time_used() -> Duration {
    let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    nix::time::clock_gettime(clock).unwrap().into()
}
