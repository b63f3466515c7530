//! The operating-system layer of Exile: run programs, own their pipes, signal them, learn how
//! they ended. It knows nothing of Erlang and can be tested with `cargo test` alone.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `command` | what to run: argv, environment, directory |
//! | `streams` | where its standard streams go |
//! | `attributes` | what options change about the new process |
//! | `spawn` | how to run it: `clone`, or `posix_spawn` |
//! | `pipeline` | several commands, each reading what the one before it writes |
//! | `pipe` | the VM's ends of the pipes, non-blocking |
//! | `exit` | how the end of a program is learned, on new kernels, old ones and other systems |
//! | `kernel` | the system calls on processes |
//! | `status` | how a program ended |
//! | `life` | a running program, its status, its one teardown, and the thread that sees to both |
//! | `guard` | reports to the program that outlives the VM |
//! | `thread` | threads of our own |
//! | `signal`, `errno` | numbers with names |
//! | `sync` | locks, which a model checker can replace |
//!
//! The model checker's proofs, and the kernel they run on, are in `../model`.

// The model has a kernel of its own, which needs less.
#![cfg_attr(loom, allow(dead_code))]

pub mod attributes;
pub mod command;
pub mod errno;
pub mod exit;
pub mod guard;
#[cfg_attr(loom, path = "../model/kernel.rs")]
mod kernel;
pub mod life;
#[cfg(loom)]
#[path = "../model/mod.rs"]
pub mod model;
pub mod pipe;
pub mod pipeline;
pub mod signal;
pub mod spawn;
pub mod status;
pub mod streams;
pub mod sync;
mod thread;

pub use attributes::{Attributes, Cpus, IoPriority, Limit, Nice, Umask};
pub use command::Command;
pub use errno::Errno;
pub use life::child::Child;
pub use life::living::{Kin, Life};
pub use life::teardown::Teardown;
pub use pipeline::{Pipeline, Stage, spawn_pipeline};
pub use signal::Signal;
pub use spawn::{Attempt, SpawnError, Spawned, Step, discard, spawn};
pub use status::Status;
pub use streams::{Stdio, Streams};
