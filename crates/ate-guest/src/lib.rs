//! What a herder and the agent inside its virtual machine say to each other.
#![forbid(unsafe_code)]

pub mod frame;
#[cfg(test)]
mod fuzz;
pub mod protocol;
