//! Init and agent inside a virtual machine.

fn main() {}
