//! The keeper handles every running process, even after a panic on its thread. The cost of an exit
//! does not depend on how many processes run.

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, Relatives, Stranger, alone, command, descriptors, has_children, limit, line,
    no_lives, quiet_sh, refuse, set_limit, sh, soon, spawn, status,
};
use exile_os::life::{keeper, registry};
use exile_os::{Child, Errno, Life, Signal, Spawned, Status, Stdio, Teardown, exit};

fn at_once() -> Teardown {
    Teardown {
        grace: Duration::ZERO,
        steps: vec![],
    }
}

fn begin(child: &Arc<Child>, kin: Relatives) -> Arc<Life<Relatives>> {
    Life::begin(Arc::clone(child), at_once(), kin).unwrap()
}

/// Spawns a program that does nothing until it is killed.
fn idle() -> Spawned {
    spawn(&command("sleep", &["1000"]).stdio(Stdio::Null, Stdio::Null, Stdio::Null))
}

/// Asserts that nothing is left of any process.
fn nothing_left(before: &[i32]) {
    no_lives();
    assert_eq!(exit::open_count(), 0);
    assert_eq!(descriptors(), before);
    soon("the kernel has forgotten all children", || !has_children());
}

fn killed() -> Status {
    Status::Signaled {
        signal: libc::SIGKILL as u8,
        core: false,
    }
}

/// Returns the CPU time that the keeper's thread has used.
fn time_used() -> Duration {
    let thread = fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|thread| thread.unwrap().path())
        .find(|thread| fs::read_to_string(thread.join("comm")).unwrap() == "exile_keeper\n");
    let times = fs::read_to_string(thread.unwrap().join("schedstat")).unwrap();
    Duration::from_nanos(times.split(' ').next().unwrap().parse().unwrap())
}

/// Returns the CPU time that the keeper uses for the exits of many processes.
fn cost_of_ends() -> Duration {
    const ENDS: usize = 500;
    let told = Arc::new(AtomicUsize::new(0));
    let before = time_used();
    for n in 1..=ENDS {
        let spawned = spawn(&quiet_sh("exit 0"));
        let count = Arc::clone(&told);
        let kin = Relatives {
            ended: Box::new(move || {
                count.fetch_max(n, Ordering::AcqRel);
            }),
            ..Relatives::default()
        };
        drop(begin(&spawned.child, kin));
        soon("the end is told", || told.load(Ordering::Acquire) == n);
    }
    time_used() - before
}

#[test]
#[cfg_attr(exile_portable, ignore = "poll looks at every descriptor")]
fn an_exit_costs_the_same_however_many_programs_run() {
    const IDLE: usize = 3000;
    alone("an_exit_costs_the_same_however_many_programs_run", || {
        if exit::choose(None) != Ok(exit::Source::Pidfd) {
            common::sigchld(libc::SIG_DFL);
        }
        set_limit(libc::RLIMIT_NOFILE, limit(libc::RLIMIT_NOFILE).rlim_max);
        keeper::start().unwrap();
        let before = descriptors();
        let few: Vec<_> = (0..10).map(|_| idle()).collect();
        let mut lives: Vec<_> = few
            .iter()
            .map(|idle| begin(&idle.child, Relatives::default()))
            .collect();
        let among_few = cost_of_ends();
        for _ in few.len()..IDLE {
            lives.push(begin(&idle().child, Relatives::default()));
        }
        assert!(registry::children().len() >= IDLE);
        let among_many = cost_of_ends();
        // It would take hundreds of times as long if every exit checked every process.
        assert!(
            among_many < 4 * among_few + Duration::from_millis(20),
            "{among_few:?} among 10, {among_many:?} among {IDLE}"
        );
        assert!(lives.iter().all(|life| life.end()));
        drop((few, lives));
        nothing_left(&before);
    });
}

#[test]
fn with_nothing_to_do_the_keeper_sleeps() {
    alone("with_nothing_to_do_the_keeper_sleeps", || {
        keeper::start().unwrap();
        let idle = idle();
        let life = begin(&idle.child, Relatives::default());
        // Gives the keeper time to go to sleep.
        std::thread::sleep(Duration::from_millis(100));
        let before = time_used();
        std::thread::sleep(Duration::from_millis(300));
        assert!(time_used() - before < Duration::from_millis(10));
        assert!(life.end());
        no_lives();
    });
}

#[test]
fn a_panic_on_its_thread_stops_no_teardown_and_the_exit_is_reported_again() {
    const COUNT: usize = 60;
    alone(
        "a_panic_on_its_thread_stops_no_teardown_and_the_exit_is_reported_again",
        || {
            keeper::start().unwrap();
            // The first spawn starts every other thread.
            assert_eq!(status(&spawn(&quiet_sh("exit 1")).child), Status::Exited(1));
            let before = descriptors();
            let (told, ends) = channel();
            let programs: Vec<_> = (0..COUNT)
                .map(|number| {
                    let idle = idle();
                    let (told, over) = (told.clone(), told.clone());
                    let calls = AtomicUsize::new(0);
                    let kin = Relatives {
                        ended: Box::new(move || {
                            // Panics for every other process, at the first report.
                            let first = calls.fetch_add(1, Ordering::AcqRel) == 0;
                            assert!(!first || number % 2 == 0, "as this test wants it");
                            let _ = told.send((number, false));
                        }),
                        over: Box::new(move |refused| {
                            assert_eq!(refused, None);
                            let _ = over.send((number, true));
                        }),
                        ..Relatives::default()
                    };
                    (begin(&idle.child, kin), idle)
                })
                .collect();
            // A third are killed directly; the others are ended by their teardown.
            for (number, (life, idle)) in programs.iter().enumerate() {
                if number % 3 == 0 {
                    assert_eq!(idle.child.signal(Signal::KILL), Ok(()));
                } else {
                    assert!(life.end());
                }
            }
            no_lives();
            let heard: Vec<(usize, bool)> = ends.try_iter().collect();
            for (number, (_, idle)) in programs.iter().enumerate() {
                assert_eq!(idle.child.try_status(), Some(killed()));
                assert!(heard.contains(&(number, false)), "{number}");
                let over = heard.iter().filter(|told| **told == (number, true));
                assert_eq!(over.count(), usize::from(number % 3 != 0), "{number}");
            }
            drop(programs);
            nothing_left(&before);
        },
    );
}

#[test]
fn a_panic_in_one_errand_does_not_affect_the_others() {
    alone("a_panic_in_one_errand_does_not_affect_the_others", || {
        let (sender, done) = channel();
        for number in 0..10 {
            let (timed, idle) = (sender.clone(), sender.clone());
            let errand = move || {
                assert!(number % 2 == 0, "as this test wants it");
                timed.send(("in time", number)).unwrap();
            };
            keeper::at(Instant::now(), Box::new(errand)).unwrap();
            let errand = move || {
                assert!(number % 2 == 0, "as this test wants it");
                idle.send(("idle", number)).unwrap();
            };
            keeper::when_idle(Box::new(errand)).unwrap();
        }
        drop(sender);
        let mut all: Vec<_> = (0..10)
            .map(|_| done.recv_timeout(PATIENCE).unwrap())
            .collect();
        all.sort_unstable();
        let expected = ["idle", "in time"].map(|kind| [0, 2, 4, 6, 8].map(|number| (kind, number)));
        assert_eq!(all, expected.concat());
        // No errand runs twice.
        assert!(done.recv_timeout(PATIENCE).is_err());
    });
}

#[test]
fn errands_run_in_the_order_of_their_times_and_never_early() {
    alone(
        "errands_run_in_the_order_of_their_times_and_never_early",
        || {
            let (sender, done) = channel();
            let start = Instant::now();
            for wait in [120, 40, 80, 0, 160] {
                let sender = sender.clone();
                let due = start + Duration::from_millis(wait);
                let errand = move || {
                    let thread = std::thread::current().name().map(str::to_owned);
                    sender.send((wait, Instant::now() >= due, thread)).unwrap();
                };
                keeper::at(due, Box::new(errand)).unwrap();
            }
            for wait in [0, 40, 80, 120, 160] {
                let told = done.recv_timeout(PATIENCE).unwrap();
                assert_eq!(told, (wait, true, Some("exile_keeper".to_owned())));
            }
        },
    );
}

#[test]
fn an_idle_errand_runs_when_no_teardown_is_under_way() {
    alone("an_idle_errand_runs_when_no_teardown_is_under_way", || {
        let (sender, done) = channel();
        let stubborn = spawn(&sh("trap '' TERM; echo ready; while :; do read x; done"));
        assert_eq!(line(stubborn.stdout.as_ref().unwrap()), "ready");
        let life = begin(&stubborn.child, Relatives::default());
        let moment = Duration::from_millis(100);
        let teardown = Teardown {
            grace: Duration::ZERO,
            steps: vec![(Signal::TERM, moment)],
        };
        let start = Instant::now();
        assert!(life.end_by(&teardown));
        let child = Arc::clone(&stubborn.child);
        let errand = move || {
            sender
                .send((registry::under_way(), child.try_status()))
                .unwrap()
        };
        keeper::when_idle(Box::new(errand)).unwrap();
        let told = done.recv_timeout(PATIENCE).unwrap();
        assert_eq!(told, (0, Some(killed())));
        assert!(start.elapsed() >= moment);
    });
}

#[test]
fn a_program_whose_life_cannot_begin_is_killed_with_its_group() {
    alone(
        "a_program_whose_life_cannot_begin_is_killed_with_its_group",
        || {
            let spawned = spawn(&sh("sleep 1000 & echo $!; exec cat"));
            let member = line(spawned.stdout.as_ref().unwrap());
            let member = Stranger::of(&member).unwrap();
            let child = Arc::clone(&spawned.child);
            let begun = std::thread::spawn(move || {
                // Which of the two calls creates a thread depends on the C library.
                refuse(libc::SYS_clone3, None, libc::EAGAIN);
                refuse(libc::SYS_clone, None, libc::EAGAIN);
                Life::begin(child, at_once(), Relatives::default()).err()
            });
            assert_eq!(begun.join().unwrap(), Some(Errno::EAGAIN));
            assert_eq!(status(&spawned.child), killed());
            assert!(member.ends());
            assert_eq!(exit::open_count(), 0);
            no_lives();
            // The life of the next process can begin.
            let next = idle();
            assert!(begin(&next.child, Relatives::default()).end());
            no_lives();
            assert_eq!(next.child.try_status(), Some(killed()));
        },
    );
}

#[test]
fn a_request_made_while_the_keeper_wakes_up_is_not_lost() {
    const THREADS: usize = 4;
    const EACH: usize = 30_000;
    alone(
        "a_request_made_while_the_keeper_wakes_up_is_not_lost",
        || {
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        let (sender, done) = channel();
                        for n in 0..EACH {
                            let sender = sender.clone();
                            let errand = move || sender.send(n).unwrap();
                            keeper::at(Instant::now(), Box::new(errand)).unwrap();
                            // By now the keeper is usually going back to sleep.
                            assert_eq!(done.recv_timeout(PATIENCE), Ok(n));
                        }
                    });
                }
            });
        },
    );
}
