//! What happens to one actor, step by step. Each file is one workflow; each step can be repeated.
//!
//! The record in the store leads: the claim is written before the node is told, the new snapshot before the worker is
//! given up. Between the two the phase is transient, has a deadline, and [`recover`] knows the way back. [`live`] says
//! what is written when.

pub(crate) mod adopt;
pub(crate) mod claim;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod golden;
pub(crate) mod live;
pub(crate) mod recover;
pub(crate) mod resume;
pub(crate) mod start;
pub(crate) mod suspend;
pub(crate) mod turns;
pub(crate) mod verify;
