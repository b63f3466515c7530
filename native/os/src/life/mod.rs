//! The life of a process, from its start to the end of its teardown: the one place where processes
//! are ended.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `child` | a running program: signals, and its status exactly once |
//! | `teardown` | the sequence of signals that ends a process, as data |
//! | `living` | the record of one process |
//! | `registry` | all that live |
//! | `keeper` | the thread that sees exits and runs teardowns |
//! | `agenda` | what it has to do when |
//!
//! ```text
//!               exits                      its teardown is over
//!  running ────────────────▶ ended ─────────────────────────────▶ forgotten
//!     │                        ▲                                      ▲
//!     │ someone wants its end  │ exits                                │ its group is gone,
//!     └────────▶ claimed ──────┴────▶ ended, its group is ended ──────┘ or was killed
//! ```
//!
//! A process that ends by itself leaves its group alone. Once it is *claimed* its group goes with
//! it, whatever it dies of. So a process that is to end is claimed first, and its pipes are closed
//! after that: a pipe that is closed may end a process, which must not look like an end of its own
//! accord.

mod agenda;
pub mod child;
#[cfg_attr(loom, path = "../../model/keeper.rs")]
pub mod keeper;
pub mod living;
pub mod registry;
pub mod teardown;
