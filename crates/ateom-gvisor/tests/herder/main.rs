//! Promises of the herder, kept with the real runsc over the real socket.

mod app;
mod lifecycle;
mod worker;
