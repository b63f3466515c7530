//! One teardown, advanced as the reaper's thread does it, while the command ends by itself and
//! others learn of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loom::thread;

use super::each_source;
use super::world;
use crate::life::keeper::Job;
use crate::{Signal, Status, Teardown};

const PID: libc::pid_t = 7;
/// Without it, most of a minute passes.
const BOUND: Option<usize> = Some(4);
const STATUS: Status = Status::Exited(3);

#[test]
fn a_teardown_tells_once_when_the_command_has_ended_and_never_sleeps_through_it() {
    each_source(BOUND, |_| {
        let (child, _) = world::child(PID);
        let kernel = thread::spawn(|| {
            world::end(PID, STATUS);
            world::tell(PID);
        });
        let other = Arc::clone(&child);
        let other = thread::spawn(move || other.try_status());

        let teardown = Teardown {
            grace: Duration::ZERO,
            steps: vec![(Signal::TERM, Duration::from_secs(1))],
        };
        let told = Arc::new(AtomicUsize::new(0));
        let (counter, ended) = (Arc::clone(&told), Arc::clone(&child));
        let on_end = Box::new(move || {
            assert_eq!(ended.try_status(), Some(STATUS));
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut now = Instant::now();
        let mut job = Job::new(&child, teardown, on_end, now);
        while !job.advance(now) {
            // It would sleep now. What has not told must have something to wake up by.
            assert!(told.load(Ordering::Relaxed) == 1 || job.awaited().is_some());
            now += Duration::from_secs(1);
            thread::yield_now();
        }
        assert_eq!(told.load(Ordering::Relaxed), 1);
        drop(job);
        other.join().unwrap();
        kernel.join().unwrap();
        assert_eq!(child.try_status(), Some(STATUS));
    });
}
