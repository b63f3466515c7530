//! The life of a process, from its start to the end of its teardown. This is the only place where
//! processes are ended.
//!
//! | file | contents |
//! | --- | --- |
//! | `child` | a running process: its signals, and its status exactly once |
//! | `teardown` | the sequence of signals that ends a process, as data |
//! | `living` | the record of one process |
//! | `registry` | all lives |
//! | `keeper` | the thread that sees exits and runs teardowns |
//! | `agenda` | the times at which the keeper has something to do |
//!
//! ```text
//!               exits                      its teardown is over
//!  running ────────────────▶ ended ─────────────────────────────▶ forgotten
//!     │                        ▲                                      ▲
//!     │ someone wants its end  │ exits                                │ its group is gone,
//!     └────────▶ claimed ──────┴────▶ ended, its group is ended ──────┘ or was killed
//! ```
//!
//! A process that ends by itself leaves its group alone. Once a process is *claimed*, its group is
//! ended with it, whatever the process dies of. So a process is claimed before its pipes are
//! closed: closing a pipe may end it, and that must not look as if it had ended by itself.

mod agenda;
pub mod child;
#[cfg_attr(loom, path = "../../model/keeper.rs")]
pub mod keeper;
pub mod living;
pub mod registry;
pub mod teardown;
