//! Statuses from the pidfd, with SIGCHLD ignored as the Erlang VM does. Before Linux 6.15, from
//! whatever there is.
#![cfg(not(exile_portable))]

mod common;
mod exits;

use exile_os::exit::{self, Source};

fn setup() {
    common::choose_source();
}

/// Where pidfds tell the status the kernel does it.
fn bury_strangers() {
    if exit::source() != Source::Pidfd {
        common::soon("nobody is left to bury", || {
            exit::sweep();
            !common::has_children()
        });
    }
}
