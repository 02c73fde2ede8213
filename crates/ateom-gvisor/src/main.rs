//! The herder for gVisor (runsc).

fn main() {}
