//! What holds in every order in which threads can run, up to the sizes used here. The models run
//! the real [`child`](crate::life::child), [`living`](crate::life::living) and
//! [`exit`](crate::exit), with the locks of the model checker and on a kernel made for them. They
//! are built only with `--cfg loom`.

pub mod world {
    //! What a model does to the kernel, and what it asks the kernel.
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

/// [`Source::Portable`] has more orders, and each makes pipes. So its orders are always bounded.
#[cfg(test)]
const PORTABLE_BOUND: usize = 3;

/// Runs `body` in every order of its threads, with statuses from `source`. With a `bound`, only in
/// orders with at most that many switches away from a thread that could go on.
#[cfg(test)]
fn explore(source: Source, bound: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    // The source and the descriptor numbers are those of the whole process, so models run one at a
    // time.
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

/// Like [`explore`], with statuses from each source.
#[cfg(test)]
fn each_source(bound: Option<usize>, body: impl Fn(Source) + Send + Sync + Clone + 'static) {
    for source in [Source::Wait, Source::Pidfd, Source::Portable] {
        let body = body.clone();
        explore(source, bound, move || body(source));
    }
}

/// Like [`each_source`], without a bound, and only for sources with which children stay zombies
/// until their statuses are fetched.
#[cfg(test)]
fn each_with_zombies(body: impl Fn() + Send + Sync + Clone + 'static) {
    for source in [Source::Wait, Source::Portable] {
        explore(source, None, body.clone());
    }
}
