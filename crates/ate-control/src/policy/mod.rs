//! What the control plane does without being asked: suspend the idle, make room, prepare what is likely next.

pub(crate) mod demand;
pub(crate) mod evict;
pub(crate) mod idle;
pub(crate) mod prepare;
