//! For tests: a real PostgreSQL in a directory of its own, and a connection to it that can be cut.
//!
//! The server is Debian's, which `script/setup` installs. It runs as an unprivileged user, because it does not run as
//! root, listens on loopback and ends with the process that started it, however that ends.
#![forbid(unsafe_code)]

mod proxy;
mod server;

pub use proxy::Proxy;
pub use server::{Server, Tuning};
