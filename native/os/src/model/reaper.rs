//! The thread of the reaper, for models of those who call it: it does its work when the model
//! says so. What it does with one teardown is another model.

use std::sync::Arc;

use crate::errno::Errno;
use crate::kernel::{end, tell};
use crate::life::child::Child;
pub use crate::life::keeper::OnEnd;
use crate::life::teardown::Teardown;
use crate::shared;
use crate::status::Status;
use crate::sync::Mutex;

/// How commands end that are ended here.
pub const KILLED: Status = Status::Signaled {
    signal: libc::SIGKILL as u8,
    core: false,
};

shared! { static JOBS: Mutex<Vec<(Arc<Child>, OnEnd)>> = Mutex::new(Vec::new()); }

/// Takes a command over.
pub fn terminate(child: &Arc<Child>, _teardown: Teardown, on_end: OnEnd) -> Result<(), Errno> {
    JOBS.lock().unwrap().push((Arc::clone(child), on_end));
    Ok(())
}

/// Ends what was taken over and tells so.
pub fn run() {
    loop {
        let job = JOBS.lock().unwrap().pop();
        let Some((child, on_end)) = job else { return };
        if child.try_status().is_none() {
            end(child.pid(), KILLED);
            tell(child.pid());
        }
        assert!(child.try_status().is_some());
        on_end();
    }
}

/// Not modelled.
pub fn start() -> Result<(), Errno> {
    Ok(())
}

/// Not modelled.
pub fn under_way() -> usize {
    JOBS.lock().unwrap().len()
}

/// Not modelled.
pub fn when_idle(_then: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
    Ok(())
}
