//! Teardowns where children are known only by number. The number of a group is safe to use only
//! until its leader is reaped.

mod common;
mod teardowns;

use exile_os::exit::{self, Source};

fn reaches_group_after_its_leader() -> bool {
    false
}

fn setup() {
    common::sigchld(libc::SIG_DFL);
    assert_eq!(exit::choose(Some(Source::Portable)), Ok(Source::Portable));
}
