//! Statuses from the pidfd, with SIGCHLD ignored as the Erlang VM does.
#![cfg(not(exile_portable))]

mod common;
mod exits;

use exile_os::exit::{self, Source};

fn setup() {
    common::sigchld(libc::SIG_IGN);
    assert_eq!(exit::choose(Some(Source::Pidfd)), Ok(Source::Pidfd));
}

/// The kernel does.
fn bury_strangers() {}
