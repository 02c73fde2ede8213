//! The HTTP router: finds the actor from the host name, wakes it, forwards.
#![forbid(unsafe_code)]
