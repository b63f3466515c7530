//! How long a process of a pipeline waits for what the one before it left behind: descendants that
//! still hold the pipe between the two when their process has ended.

use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use exile_os::exit::ExitFd;
use exile_os::life::keeper;
use exile_os::sync::{Mutex, MutexGuard};

use crate::bonds::Life;

/// How long a process may take to notice that its input has ended.
const CUT_PATIENCE: Duration = Duration::from_millis(100);

/// The pipe between two processes of a pipeline.
struct Drain {
    /// The process that writes and its exit fd, which reaches its group after its end. `None` when the
    /// process that reads has ended.
    writer: Mutex<Option<(Arc<Life>, Arc<ExitFd>)>>,
    reader: Weak<Life>,
    patience: Duration,
}

/// Gives each process `patience` to read what descendants of the one before it hold open. `ends` are
/// their exit fds.
pub(crate) fn bound_drains(
    lives: &[Arc<Life>],
    ends: Vec<Option<Arc<ExitFd>>>,
    patience: Duration,
) {
    for (pair, end) in lives.windows(2).zip(ends) {
        let ([writer, reader], Some(end)) = (pair, end) else {
            continue;
        };
        let drain = Arc::new(Drain {
            writer: Mutex::new(Some((Arc::clone(writer), end))),
            reader: Arc::downgrade(reader),
            patience,
        });
        let begun = Arc::clone(&drain);
        reader.kin().when_ended(move || drop(drain.take()));
        writer.kin().when_ended(move || begun.begin());
    }
}

impl Drain {
    fn writer(&self) -> MutexGuard<'_, Option<(Arc<Life>, Arc<ExitFd>)>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<(Arc<Life>, Arc<ExitFd>)> {
        self.writer().take()
    }

    /// The writer has ended: its descendants have their time from now on, if the reader is still there.
    fn begin(self: Arc<Self>) {
        if self.writer().is_none() {
            return;
        }
        let due = Instant::now() + self.patience;
        let _ = keeper::at(due, Box::new(move || self.cut_off()));
    }

    /// Ends what keeps the reader waiting for the end of its input; if that does not help, the reader.
    fn cut_off(&self) {
        let (Some(reader), Some((writer, end))) = (self.reader.upgrade(), self.take()) else {
            return;
        };
        if reader.child().waits_for_input() == Some(false) {
            return;
        }
        writer.end_rest(end);
        let reader = Arc::downgrade(&reader);
        let errand = Box::new(move || {
            if let Some(reader) = reader.upgrade() {
                // A process that may be at work is not ended on a guess.
                if reader.child().waits_for_input() == Some(true) {
                    reader.end();
                }
            }
        });
        let _ = keeper::at(Instant::now() + writer.patience() + CUT_PATIENCE, errand);
    }
}
