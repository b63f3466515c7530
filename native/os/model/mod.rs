//! What is true in every order in which threads can run, up to the sizes used here: the real
//! [`child`](crate::life::child), [`living`](crate::life::living) and [`exit`](crate::exit) on the
//! locks of the model checker and on a kernel made for it. Built with `--cfg loom` only.

pub mod world {
    //! What a model does to the kernel, and asks it.
    pub use crate::kernel::{
        KILLED, bury, child, end, forbid, group_signals, grow_old, hang, hang_on, hang_up,
        has_left, has_others, have_others, is_open, is_there, leave_group, pipe, received, signals,
        stranger, tell, wake_up,
    };
}

#[cfg(test)]
mod child;
#[cfg(test)]
mod life;
#[cfg(test)]
mod sweep;

#[cfg(test)]
use crate::exit::{self, Source};

/// With [`Source::Portable`] there are more orders, and each makes pipes.
#[cfg(test)]
const PORTABLE_BOUND: usize = 3;

/// Runs `body` in every order of its threads, with statuses from `source`. With a `bound`, in
/// every order with at most so many changes of threads that need not wait.
#[cfg(test)]
fn explore(source: Source, bound: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    // The source and the numbers of descriptors are those of the process.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    assert_eq!(exit::choose(Some(source)), Ok(source));
    let mut model = loom::model::Builder::new();
    model.preemption_bound = match source {
        Source::Portable => bound.or(Some(PORTABLE_BOUND)),
        Source::Pidfd | Source::Wait => bound,
    };
    model.check(body);
}

/// The same with statuses from each.
#[cfg(test)]
fn each_source(bound: Option<usize>, body: impl Fn(Source) + Send + Sync + Clone + 'static) {
    for source in [Source::Wait, Source::Pidfd, Source::Portable] {
        let body = body.clone();
        explore(source, bound, move || body(source));
    }
}

/// The same where children are zombies until somebody takes their statuses.
#[cfg(test)]
fn each_with_zombies(body: impl Fn() + Send + Sync + Clone + 'static) {
    for source in [Source::Wait, Source::Portable] {
        explore(source, None, body.clone());
    }
}
