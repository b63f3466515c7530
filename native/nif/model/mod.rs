//! What is true in every order in which threads can run, up to the sizes used here: the real
//! [`pipe`](crate::pipe), [`process`](crate::process) and [`request`](crate::request) on the locks of
//! the model checker, on a VM and on a kernel made for it. Built with `--cfg loom` only.

mod pipe;
mod process;
mod request;

use exile_os::exit::{self, Source};

/// Runs `body` in every order of its threads, with statuses from `source`, with at most `bound`
/// changes of threads that need not wait; without a bound, in every order.
fn explore(source: Source, bound: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    // The source and the numbers of descriptors are those of the process.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    assert_eq!(exit::choose(Some(source)), Ok(source));
    let mut model = loom::model::Builder::new();
    model.preemption_bound = bound;
    model.check(body);
}
