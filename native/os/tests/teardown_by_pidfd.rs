//! Teardowns where the kernel buries children and their pidfds tell the status.
#![cfg(not(exile_portable))]

mod common;
mod teardowns;

use exile_os::exit::{self, Source};

const REACHES_GROUP_AFTER_ITS_LEADER: bool = true;

fn setup() {
    common::sigchld(libc::SIG_IGN);
    assert_eq!(exit::choose(Some(Source::Pidfd)), Ok(Source::Pidfd));
}
