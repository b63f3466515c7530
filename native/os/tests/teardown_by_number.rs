//! Teardowns where children are never more than a number: that of a group is only safe to use
//! while its leader has not been reaped.

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
