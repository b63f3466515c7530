//! Teardowns where the kernel reaps children and their pidfds provide the status. Before Linux
//! 6.15, statuses come from whichever source is available.
#![cfg(not(exile_portable))]

mod common;
mod teardowns;

fn reaches_group_after_its_leader() -> bool {
    common::kernel_is_at_least(6, 9)
}

fn setup() {
    common::choose_source();
}
