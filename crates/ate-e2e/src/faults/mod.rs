//! Faults at every step of every workflow, on a running node: the process dies at a point, an error is injected there,
//! the step is run twice, the herder or the sandbox dies meanwhile. After each, what the six invariants promise is looked
//! at from outside.
//!
//! The steps are found in the sources ([`points`]); which story reaches which step is a table ([`stories`]). A step that
//! no story reaches is a violation, like one that breaks a promise.

pub mod actor;
pub mod cases;
pub mod check;
pub mod leaks;
pub mod ledger;
pub mod points;
pub mod stories;
pub mod storm;
pub mod suite;
pub mod world;

pub use cases::{Case, Fault};
pub use suite::{Report, Suite};
pub use world::World;
