//! The sweep of zombies, against spawns and against threads that ask for the status of their child.

use std::sync::Arc;

use loom::thread;

use super::each_with_zombies;
use super::world;
use crate::exit::{self, while_registering};
use crate::{Child, Status};

const PID: libc::pid_t = 7;
const STRANGER: libc::pid_t = 8;
const STATUS: Status = Status::Exited(3);

/// A child that has ended before its spawn returns.
fn short_lived(status: Status) -> Arc<Child> {
    let registered = while_registering(|| {
        let (child, _) = world::child(PID);
        world::end(PID, status);
        Ok::<_, ()>(child)
    });
    registered.unwrap()
}

#[test]
fn a_status_that_the_sweep_meets_is_kept_for_its_owner() {
    each_with_zombies(|| {
        let sweeper = thread::spawn(exit::sweep);
        let child = short_lived(STATUS);
        let seen = child.try_status();
        assert_eq!(seen, Some(STATUS));
        sweeper.join().unwrap();
        assert_eq!(child.try_status(), Some(STATUS));
    });
}

#[test]
fn two_sweeps_bury_the_strangers_and_them_alone() {
    each_with_zombies(|| {
        world::stranger(STRANGER);
        world::end(STRANGER, STATUS);
        let sweeper = thread::spawn(exit::sweep);
        let spawner = thread::spawn(|| short_lived(STATUS));
        exit::sweep();
        sweeper.join().unwrap();
        assert_eq!(spawner.join().unwrap().try_status(), Some(STATUS));
        // While a spawn is under way, a sweep may leave a zombie to the next sweep.
        exit::sweep();
        assert!(!world::is_there(STRANGER));
    });
}

#[test]
fn a_child_that_nobody_has_any_more_is_buried() {
    each_with_zombies(|| {
        let child = short_lived(STATUS);
        let sweeper = thread::spawn(exit::sweep);
        drop(child);
        sweeper.join().unwrap();
        exit::sweep();
        assert!(!world::is_there(PID));
    });
}

#[test]
fn a_number_that_is_used_again_belongs_to_the_new_child() {
    each_with_zombies(|| {
        let old = short_lived(STATUS);
        let asker = thread::spawn(move || old.try_status());
        let sweeper = thread::spawn(exit::sweep);
        let new = (!world::is_there(PID)).then(|| short_lived(Status::Exited(4)));
        assert_eq!(asker.join().unwrap(), Some(STATUS));
        sweeper.join().unwrap();
        exit::sweep();
        if let Some(new) = new {
            assert_eq!(new.try_status(), Some(Status::Exited(4)));
        }
    });
}
