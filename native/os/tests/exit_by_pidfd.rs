//! Statuses come from the pidfd, with SIGCHLD ignored as in the Erlang VM. Before Linux 6.15, they
//! come from whichever source is available.
#![cfg(not(exile_portable))]

mod common;
mod exits;

use exile_os::exit::{self, Source};

fn setup() {
    common::choose_source();
}

/// Reaps children that nothing else waits for. Where pidfds provide the status, the kernel reaps.
fn bury_strangers() {
    if exit::source() != Source::Pidfd {
        common::soon("nobody is left to bury", || {
            exit::sweep();
            !common::has_children()
        });
    }
}
