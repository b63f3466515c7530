//! Teardowns where children are never more than a number: that of a group is only safe to use
//! while its leader has not been reaped.

mod common;
mod teardowns;

use exile_os::exit::{self, Source};

const REACHES_GROUP_AFTER_ITS_LEADER: bool = false;

fn setup() {
    common::sigchld(libc::SIG_DFL);
    assert_eq!(exit::choose(Some(Source::Portable)), Ok(Source::Portable));
}
