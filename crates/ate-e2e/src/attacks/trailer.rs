//! What the attacker's program and the test that makes it agree on. A file of its own, so that the program is linked with
//! nothing else: it must not be larger than the binary it takes the place of.

/// Before the directory of the marks, at the end of the program. The last one counts: the program has it too.
pub(crate) const TRAILER: &str = "\n--- leaves its marks in: ";
