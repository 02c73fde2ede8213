//! The router over real sockets: real clients in front, real servers behind.

mod actor;
mod fixture;
mod fuzz;
mod http1;
mod http2;
mod isolation;
mod limits;
mod streaming;
mod waking;
mod websocket;
