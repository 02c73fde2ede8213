//! The HTTP router: finds the actor from the host name, wakes it, forwards.
//!
//! A request finds its actor's open route in the [`RouteTable`] and is counted in flight there; without a route
//! the [`Waker`] is asked, once per actor however many requests wait. Connections to an actor belong to its route,
//! and a route is one activation: when it closes they are dropped, so no byte reaches whoever gets the address next.
#![forbid(unsafe_code)]

mod body;
mod first_bytes;
mod forward;
mod gate;
mod headers;
mod pool;
mod reply;
mod route;
mod server;
mod table;
mod tunnel;
mod wake;
mod wire;

pub use server::{Router, RouterOptions};
pub use table::RouteTable;
pub use wake::{Route, Waker};
