//! Teardowns where exited children are zombies until `waitid` reaps them.
#![cfg(not(exile_portable))]

mod common;
mod teardowns;

use exile_os::exit::{self, Source};

fn reaches_group_after_its_leader() -> bool {
    common::kernel_is_at_least(6, 9)
}

fn setup() {
    common::sigchld(libc::SIG_DFL);
    assert_eq!(exit::choose(Some(Source::Wait)), Ok(Source::Wait));
}
