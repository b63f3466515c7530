//! Teardowns where the kernel buries children and their pidfds tell the status. Before Linux 6.15,
//! where statuses come from whatever there is.
#![cfg(not(exile_portable))]

mod common;
mod teardowns;

fn reaches_group_after_its_leader() -> bool {
    common::kernel_is_at_least(6, 9)
}

fn setup() {
    common::choose_source();
}
