//! What ends processes when it is collected.

use std::sync::{Arc, PoisonError};

use exile_os::sync::Mutex;
use rustler::Term;
use rustler::types::atom::Atom;

use crate::atoms;
use crate::bonds::{Life, end_together};
use crate::resource::{Handle, Kind, Resource};
use crate::wait::{Caller, Pid, Wait};

/// Ends processes when it is collected: for a stream that is suspended and that nobody can resume.
pub(crate) struct Tether {
    lives: Vec<Arc<Life>>,
    /// The process that is told when it is collected.
    told: Mutex<Option<Wait>>,
}

impl Resource for Tether {
    const NAME: &'static str = "Tether";

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn released(&mut self, caller: Caller) {
        end_together(self.lives.drain(..));
        let told = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = told.take() {
            wait.wake(caller);
        }
    }
}

impl Handle<Tether> {
    pub(crate) fn to(lives: Vec<Arc<Life>>) -> Handle<Tether> {
        Handle::new(Tether {
            lives,
            told: Mutex::new(None),
        })
    }

    /// Has a process told when it is collected.
    pub(crate) fn tell(&self, wait: Wait) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(wait);
    }
}

/// Has `pid` told, by a message with `reference`, when the tether is collected.
#[rustler::nif]
fn tether_tell(tether: Handle<Tether>, pid: Pid, reference: Term<'_>) -> Atom {
    let wait = Wait::new(pid, reference);
    tether.tell(wait);
    atoms::ok()
}
