//! The ate command: CLI, one-machine node and servers.

fn main() {}
