//! A node agent that follows a script: the control plane's own logic under faults. Nothing here claims to run an
//! actor; that is shown elsewhere with real sandboxes.
#![allow(dead_code, unreachable_pub)]

pub mod node;
pub mod store;
pub mod world;
