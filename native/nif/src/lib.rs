//! The native half of Exile: [`exile_os`] for the Erlang VM.
//!
//! Functions here decode, call and encode. What runs and how is in `exile_os`; what users see is
//! in Elixir. `resource` is the one place that knows of raw resources and `enif_select`; `pipe` and
//! `command` are the two resources with their functions; `spawn` and `guard` make commands;
//! `entry` is what the VM loads.

mod atoms;
mod command;
mod encode;
mod entry;
mod guard;
mod pipe;
mod resource;
mod spawn;
