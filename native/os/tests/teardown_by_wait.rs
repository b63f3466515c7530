//! Teardowns where children are zombies until they are waited for.
#![cfg(not(exile_portable))]

mod common;
mod teardowns;

use exile_os::exit::{self, Source};

const REACHES_GROUP_AFTER_ITS_LEADER: bool = true;

fn setup() {
    common::sigchld(libc::SIG_DFL);
    assert_eq!(exit::choose(Some(Source::Wait)), Ok(Source::Wait));
}
