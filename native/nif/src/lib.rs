//! The native half of Exile: [`exile_os`] for the Erlang VM.
//!
//! Functions here decode, call and encode. What runs and how is in `exile_os`; what users see is
//! in Elixir.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `entry` | what the VM finds when it loads the library |
//! | `resource` | raw resources and `enif_select`, and nothing else knows of them |
//! | `watch` | waiting for the death of a process of the VM |
//! | `wait` | a process of the VM that waits for a message |
//! | `pipe`, `pipe_end` | one end of a pipe and who owns it; how its bytes move |
//! | `question` | whether an answer is due |
//! | `process`, `tether` | what Erlang code holds of a process |
//! | `bonds`, `drain` | what belongs to a process in the VM; how long the next one waits for it |
//! | `spec`, `environment` | what Elixir says about a spawn |
//! | `spawn`, `request` | making processes |
//! | `guard` | making the guard |
//! | `vm` | what concerns the VM as a whole |
//! | `encode`, `atoms` | terms |
//!
//! The model checker's proofs, and the VM they run on, are in `../model`.

// The model has no VM to load it, nor a kernel to run programs.
#![cfg_attr(loom, allow(dead_code))]

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
