//! Teardowns where a pidfd cannot signal a group: before Linux 6.9 the number of a group is all
//! there is, and it is only safe to use while the leader has not been reaped.
#![cfg(not(exile_portable))]

mod common;
mod teardowns;

use std::sync::Once;

use exile_os::exit::{self, Source};

fn reaches_group_after_its_leader() -> bool {
    false
}

/// `PIDFD_SIGNAL_PROCESS_GROUP`, which is the fourth argument.
const TO_GROUP: (u32, u32) = (3, 1 << 2);

fn setup() {
    common::sigchld(libc::SIG_DFL);
    assert_eq!(exit::choose(Some(Source::Wait)), Ok(Source::Wait));
    // The thread that makes the keeper, then those that spawn: a filter holds for a thread and
    // for those that it starts.
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
