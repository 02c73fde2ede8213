//! The node agent: asset cache, image cache, workers and snapshot movement.
#![forbid(unsafe_code)]

pub mod assets;
pub mod images;

mod disk;
mod flight;
mod unpack;
