//! The source of statuses is detected on the running kernel.
#![cfg(not(exile_portable))]

mod common;

use common::{alone, descriptors, has_children, quiet_sh, refuse, sigchld, soon, spawn, status};
use exile_os::exit::{self, Source};
use exile_os::{Errno, Status};

/// Since Linux 6.15, a pidfd provides the status of a child that was reaped.
fn expected() -> Source {
    if common::kernel_is_at_least(6, 15) {
        Source::Pidfd
    } else {
        Source::Wait
    }
}

fn nothing_left(before: &[i32]) {
    assert_eq!(descriptors(), before);
    assert_eq!(exit::open_count(), 0);
    soon("the kernel has forgotten the probe", || !has_children());
}

#[test]
fn the_probe_finds_what_this_kernel_can_do() {
    alone("the_probe_finds_what_this_kernel_can_do", || {
        sigchld(libc::SIG_IGN);
        let before = descriptors();
        assert_eq!(exit::source(), Source::Pidfd);
        assert_eq!(exit::choose(None), Ok(expected()));
        assert_eq!(exit::source(), expected());
        nothing_left(&before);
    });
}

#[test]
fn the_probe_does_not_choose_a_pidfd_without_a_status() {
    alone("the_probe_does_not_choose_a_pidfd_without_a_status", || {
        sigchld(libc::SIG_IGN);
        let before = descriptors();
        let ask = (1, libc::PIDFD_GET_INFO as u32);
        refuse(libc::SYS_ioctl, Some(ask), libc::ENOTTY);
        assert_eq!(exit::choose(None), Ok(Source::Wait));
        nothing_left(&before);
        sigchld(libc::SIG_DFL);
        assert_eq!(status(&spawn(&quiet_sh("exit 6")).child), Status::Exited(6));
        assert!(!has_children());
        // SIGCHLD is no longer ignored, so the probe must not conclude that pidfds provide
        // statuses.
        assert_eq!(exit::choose(None), Ok(Source::Wait));
    });
}

#[test]
fn a_probe_without_resources_fails_and_the_next_one_succeeds() {
    alone(
        "a_probe_without_resources_fails_and_the_next_one_succeeds",
        || {
            sigchld(libc::SIG_IGN);
            let before = descriptors();
            let wants = [
                (libc::SYS_clone, libc::EAGAIN),
                (libc::SYS_clone, libc::ENOMEM),
                (libc::SYS_clone, libc::EMFILE),
                (libc::SYS_clone, libc::ENFILE),
                (libc::SYS_waitid, libc::ENOMEM),
                (libc::SYS_pidfd_send_signal, libc::EAGAIN),
                (libc::SYS_ioctl, libc::ENOMEM),
            ];
            for (call, errno) in wants {
                // A filter cannot be removed, so each case runs in its own thread.
                let chosen = std::thread::spawn(move || {
                    refuse(call, None, errno);
                    exit::choose(None)
                });
                assert_eq!(chosen.join().unwrap(), Err(Errno::new(errno)), "{call}");
                nothing_left(&before);
            }
            assert_eq!(exit::choose(None), Ok(expected()));
            nothing_left(&before);
        },
    );
}

#[test]
fn a_requested_source_is_used() {
    alone("a_requested_source_is_used", || {
        for source in [Source::Wait, Source::Portable, Source::Pidfd, Source::Wait] {
            assert_eq!(exit::choose(Some(source)), Ok(source));
            assert_eq!(exit::source(), source);
        }
    });
}
