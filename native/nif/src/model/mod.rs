//! What is true in every order in which threads can run, up to the sizes used here: the real
//! [`pipe`](crate::pipe) and [`command`](crate::command) on the locks of the model checker, on a
//! VM and on a kernel made for it. Built with `--cfg loom` only.

mod command;
mod pipe;

/// Runs `body` in every order of its threads with at most `bound` changes of threads that need
/// not wait; without a bound, in every order.
fn explore(bound: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    // The numbers of descriptors are those of the process.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = bound;
    model.check(body);
}
