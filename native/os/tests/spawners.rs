//! The spawners run jobs in the order of submission, and jobs that hang do not delay others.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{PATIENCE, alone, quiet_sh, refuse, soon, spawn, status};
use exile_os::life::keeper;
use exile_os::spawn::pool::{pending, submit};
use exile_os::{Errno, Status};

/// The maximum number of spawners.
const MOST: usize = 256;

/// How long other jobs may be delayed.
const SOON: Duration = Duration::from_millis(300);

/// Submits a job that sends `number` when it begins and hangs until the returned sender is dropped.
fn hang(begun: &Sender<usize>, number: usize) -> Sender<()> {
    let (go_on, wait) = channel::<()>();
    let begun = begun.clone();
    let job = move || {
        begun.send(number).unwrap();
        let _ = wait.recv();
    };
    submit(Box::new(job)).unwrap();
    go_on
}

fn next(begun: &Receiver<usize>) -> usize {
    begun.recv_timeout(PATIENCE).expect("no job begins")
}

#[test]
fn jobs_begin_in_the_order_of_submission_and_at_most_256_hang() {
    const COUNT: usize = 400;
    alone(
        "jobs_begin_in_the_order_of_submission_and_at_most_256_hang",
        || {
            let (sender, begun) = channel();
            let mut hanging: Vec<_> = (0..COUNT).map(|number| hang(&sender, number)).collect();
            assert_eq!(pending(), COUNT);
            let mut first: Vec<usize> = (0..MOST).map(|_| next(&begun)).collect();
            first.sort_unstable();
            assert!(first.into_iter().eq(0..MOST));
            // Another job gets a spawner only when one becomes free.
            assert!(begun.recv_timeout(SOON).is_err());
            assert_eq!(pending(), COUNT);
            for number in MOST..COUNT {
                drop(hanging.remove(0));
                assert_eq!(next(&begun), number);
                soon("one job less is pending", || {
                    pending() == COUNT - (number + 1 - MOST)
                });
            }
            drop(hanging);
            soon("no job is pending", || pending() == 0);
        },
    );
}

/// Returns how long another job takes while `count` jobs hang.
fn time_beside(count: usize) -> Duration {
    let (sender, begun) = channel();
    let hanging: Vec<_> = (0..count).map(|number| hang(&sender, number)).collect();
    let start = Instant::now();
    let (done, wait) = channel();
    submit(Box::new(move || done.send(Instant::now()).unwrap())).unwrap();
    let done = wait.recv_timeout(PATIENCE).unwrap();
    assert_eq!(begun.try_iter().count(), count);
    soon("all others hang", || pending() == count);
    drop(hanging);
    soon("no job is pending", || pending() == 0);
    done - start
}

#[test]
fn a_job_is_not_delayed_by_8_that_hang() {
    alone("a_job_is_not_delayed_by_8_that_hang", || {
        let time = time_beside(8);
        assert!(time < SOON, "{time:?}");
        // From now on there are enough spawners.
        let again = time_beside(8);
        assert!(again < Duration::from_millis(100), "{again:?}");
    });
}

#[test]
fn a_job_is_not_delayed_by_40_that_hang() {
    alone("a_job_is_not_delayed_by_40_that_hang", || {
        let time = time_beside(40);
        assert!(time < SOON, "{time:?}");
    });
}

#[test]
fn a_job_is_not_delayed_when_all_spawners_hang() {
    alone("a_job_is_not_delayed_when_all_spawners_hang", || {
        let (sender, begun) = channel();
        let cores = std::thread::available_parallelism().unwrap().get();
        // As many jobs as there are spawners at first, so no job waits.
        let hanging: Vec<_> = (0..=cores).map(|number| hang(&sender, number)).collect();
        for _ in &hanging {
            next(&begun);
        }
        std::thread::sleep(SOON);
        let start = Instant::now();
        let (done, wait) = channel();
        submit(Box::new(move || done.send(()).unwrap())).unwrap();
        assert_eq!(wait.recv_timeout(PATIENCE), Ok(()));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        drop(hanging);
        soon("no job is pending", || pending() == 0);
    });
}

#[test]
fn a_burst_of_short_jobs_starts_no_extra_spawners() {
    const COUNT: usize = 100;
    alone("a_burst_of_short_jobs_starts_no_extra_spawners", || {
        let cores = std::thread::available_parallelism().unwrap().get();
        for _ in 0..COUNT {
            submit(Box::new(|| std::thread::sleep(Duration::from_millis(10)))).unwrap();
        }
        soon("no job is pending", || pending() == 0);
        assert_eq!(spawners(), cores + 1);
    });
}

/// Returns the number of spawners.
fn spawners() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok())
        .filter(|name| name.trim_end() == "exile_spawner")
        .count()
}

#[test]
fn a_panic_in_a_job_ends_neither_its_spawner_nor_programs_it_spawned() {
    alone(
        "a_panic_in_a_job_ends_neither_its_spawner_nor_programs_it_spawned",
        || {
            const COUNT: usize = 50;
            // A program is killed when the thread that spawned it ends.
            let (told, spawned) = channel();
            for _ in 0..COUNT {
                let told = told.clone();
                let job = move || {
                    told.send(spawn(&quiet_sh("kill -STOP $$; exit 4")))
                        .unwrap();
                    panic!("as this test wants it");
                };
                submit(Box::new(job)).unwrap();
            }
            let spawned: Vec<_> = (0..COUNT)
                .map(|_| spawned.recv_timeout(PATIENCE).unwrap())
                .collect();
            soon("no job is pending", || pending() == 0);
            for command in spawned {
                let stat = format!("/proc/{}/stat", command.child.pid());
                soon("it is stopped", || {
                    std::fs::read_to_string(&stat).unwrap().contains(") T ")
                });
                let go_on = exile_os::Signal::from_name("sigcont").unwrap();
                command.child.signal(go_on).unwrap();
                assert_eq!(status(&command.child), Status::Exited(4));
            }
        },
    );
}

#[test]
fn jobs_of_many_threads_all_run_and_are_counted() {
    const THREADS: usize = 8;
    const EACH: usize = 500;
    alone("jobs_of_many_threads_all_run_and_are_counted", || {
        let gate = Arc::new((Mutex::new(0), Condvar::new()));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let gate = Arc::clone(&gate);
                        submit(Box::new(move || {
                            *gate.0.lock().unwrap() += 1;
                            gate.1.notify_all();
                        }))
                        .unwrap();
                    }
                });
            }
        });
        let (count, changed) = &*gate;
        let all = |count: &mut usize| *count < THREADS * EACH;
        let done = changed.wait_timeout_while(count.lock().unwrap(), PATIENCE, all);
        assert_eq!(*done.unwrap().0, THREADS * EACH);
        soon("no job is pending", || pending() == 0);
    });
}

#[test]
fn a_job_is_refused_when_no_thread_can_start_and_the_next_one_runs() {
    alone(
        "a_job_is_refused_when_no_thread_can_start_and_the_next_one_runs",
        || {
            keeper::start().unwrap();
            let refused = std::thread::spawn(|| {
                // Which of the two calls creates a thread depends on the C library.
                refuse(libc::SYS_clone3, None, libc::EAGAIN);
                refuse(libc::SYS_clone, None, libc::EAGAIN);
                submit(Box::new(|| panic!("it must not be done")))
            });
            assert_eq!(refused.join().unwrap(), Err(Errno::EAGAIN));
            assert_eq!(pending(), 0);
            let (done, wait) = channel();
            submit(Box::new(move || done.send(()).unwrap())).unwrap();
            assert_eq!(wait.recv_timeout(PATIENCE), Ok(()));
            soon("no job is pending", || pending() == 0);
        },
    );
}
