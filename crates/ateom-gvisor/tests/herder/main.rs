//! Promises of the herder, kept with the real runsc over the real socket.

mod container;
mod failure;
mod leftovers;
mod lifecycle;
mod worker;
