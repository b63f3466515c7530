//! The operating-system layer of Exile: run programs, own their pipes, signal them, learn how
//! they ended. It knows nothing of Erlang and can be tested with `cargo test` alone.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `command` | what to run: argv, environment, directory, standard streams |
//! | `spawn` | how to run it: `clone`, or `posix_spawn` |
//! | `pipeline` | several commands, each reading what the one before it writes |
//! | `pipe` | the VM's ends of the pipes, non-blocking |
//! | `child` | a running program: signals, and its status exactly once |
//! | `exit` | how the end of a program is learned, on new kernels, old ones and other systems |
//! | `kernel` | the system calls on processes |
//! | `status` | how a program ended |
//! | `teardown` | the sequence of signals that ends a command, as data |
//! | `reaper` | the thread that runs teardowns, so that nobody else has to wait |
//! | `guard` | reports to the program that outlives the VM |
//! | `thread` | threads of our own |
//! | `signal`, `errno` | numbers with names |
//! | `sync` | locks, which a model checker can replace |
//! | `model` | what the model checker proves, and the kernel it does so with |

// The model has a kernel of its own, which needs less.
#![cfg_attr(loom, allow(dead_code))]

pub mod child;
pub mod command;
pub mod errno;
pub mod exit;
pub mod guard;
#[cfg_attr(loom, path = "model/kernel.rs")]
mod kernel;
#[cfg(loom)]
pub mod model;
pub mod pipe;
pub mod pipeline;
pub mod reaper;
pub mod signal;
pub mod spawn;
pub mod status;
pub mod sync;
pub mod teardown;
mod thread;

pub use child::Child;
pub use command::{Command, Stdio};
pub use errno::Errno;
pub use pipeline::{Pipeline, spawn_pipeline};
pub use signal::Signal;
pub use spawn::{Attempt, SpawnError, Spawned, Step, spawn};
pub use status::Status;
pub use teardown::Teardown;
