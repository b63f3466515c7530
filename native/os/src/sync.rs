//! The locks of the state machines: the standard library's, or under `--cfg loom` those of the
//! model checker, which tries every order in which threads can take them.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicUsize};
#[cfg(loom)]
pub use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicUsize};
#[cfg(not(loom))]
pub use std::sync::{Mutex, MutexGuard};

/// A static that is created when it is first used; in a model, anew for every order.
#[cfg(not(loom))]
#[macro_export]
macro_rules! shared {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$attribute])*
        static $name: std::sync::LazyLock<$type> = std::sync::LazyLock::new(|| $value);
    };
}

/// A static that is made when it is first used; in a model, anew for every order.
#[cfg(loom)]
#[macro_export]
macro_rules! shared {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = $value:expr;) => {
        loom::lazy_static! {
            $(#[$attribute])*
            static ref $name: $type = $value;
        }
    };
}
