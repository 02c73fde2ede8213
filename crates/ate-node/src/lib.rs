//! The node agent: asset cache, image cache, workers and snapshot movement.
#![forbid(unsafe_code)]
