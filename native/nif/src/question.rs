//! Whether an answer is expected. A process that writes to a command and then reads from it usually
//! gets an answer at once, and looking for it a few times is much faster than being woken by the
//! VM. A process that reads the answer to what another process wrote does better to wait: it finds
//! more to read.

use std::sync::{Arc, Mutex, PoisonError};

use crate::wait::Pid;

/// Shared by the pipes of a command: the process that wrote since an answer was last looked for.
#[derive(Clone, Default)]
pub(crate) struct Question(Arc<Mutex<Option<Pid>>>);

impl Question {
    /// `pid` has written something.
    pub(crate) fn ask(&self, pid: Pid) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(pid);
    }

    /// Whether `pid` has written and now looks for the answer.
    pub(crate) fn take(&self, pid: Pid) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.take_if(|who| *who == pid).is_some()
    }
}
