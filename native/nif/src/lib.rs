//! The native half of Exile: [`exile_os`] for the Erlang VM.
//!
//! The functions here decode, call and encode. What is run, and how, is in `exile_os`; what users
//! see is in Elixir.
//!
//! | file | contents |
//! | --- | --- |
//! | `entry` | the entry point that the VM looks up when it loads the library |
//! | `resource` | raw resources and `enif_select`, which are used nowhere else |
//! | `watch` | waiting for the death of a process of the VM |
//! | `wait` | a process of the VM that waits for a message |
//! | `pipe`, `pipe_end` | one end of a pipe and its owner; how its bytes move |
//! | `ahead` | what was read from a pipe before anybody asked for it |
//! | `question` | whether an answer is expected |
//! | `process`, `tether` | what Erlang code holds of a process |
//! | `bonds` | what belongs to a process in the VM: its owner, its pipes, the waits for its end |
//! | `drain` | how long a process of a pipeline waits for what the one before it left behind |
//! | `spec`, `environment` | decoding the arguments of a spawn |
//! | `spawn`, `request` | spawning processes |
//! | `guard` | starting the guard |
//! | `vm` | the start, stop and counts of the library in a VM |
//! | `encode`, `atoms` | encoding terms |
//!
//! The proofs for the model checker, and the VM they run on, are in `../model`.

// The model has no VM to load it and no kernel to run programs.
#![cfg_attr(loom, allow(dead_code))]

mod ahead;
mod atoms;
mod bonds;
mod drain;
mod encode;
#[cfg(not(loom))]
mod entry;
#[cfg(not(loom))]
mod environment;
#[cfg(not(loom))]
mod guard;
#[cfg(all(loom, test))]
#[path = "../model/mod.rs"]
mod model;
mod pipe;
mod pipe_end;
mod process;
mod question;
mod request;
#[cfg_attr(loom, path = "../model/resource.rs")]
mod resource;
#[cfg(not(loom))]
mod spawn;
#[cfg(not(loom))]
mod spec;
mod tether;
#[cfg(not(loom))]
mod vm;
#[cfg(not(loom))]
mod wait;
mod watch;
#[cfg(loom)]
use resource as wait;
