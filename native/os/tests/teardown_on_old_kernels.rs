//! Teardowns where a pidfd cannot signal a group. Before Linux 6.9, a group can be signalled only
//! by its number, which is safe to use only until the leader is reaped.
#![cfg(not(exile_portable))]

mod common;
mod teardowns;

use std::sync::Once;

use exile_os::exit::{self, Source};

fn reaches_group_after_its_leader() -> bool {
    false
}

/// `PIDFD_SIGNAL_PROCESS_GROUP`, as the fourth argument.
const TO_GROUP: (u32, u32) = (3, 1 << 2);

fn setup() {
    common::sigchld(libc::SIG_DFL);
    assert_eq!(exit::choose(Some(Source::Wait)), Ok(Source::Wait));
    // A filter applies to a thread and to the threads that it starts, so the thread that starts the
    // keeper must have it.
    let refuse = || common::refuse(libc::SYS_pidfd_send_signal, Some(TO_GROUP), libc::EINVAL);
    static KEEPER: Once = Once::new();
    KEEPER.call_once(|| {
        let started = std::thread::spawn(move || {
            refuse();
            exile_os::life::keeper::start()
        });
        assert_eq!(started.join().unwrap(), Ok(()));
    });
}
