//! What an attacker would like to have executed: it leaves a mark and fails. A copy of it says at its end where.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, process::ExitCode};

#[path = "../attacks/trailer.rs"]
mod trailer;

use trailer::TRAILER;

fn main() -> ExitCode {
    let me = fs::read("/proc/self/exe").unwrap_or_default();
    let at = me.windows(TRAILER.len()).rposition(|w| w == TRAILER.as_bytes());
    let marks = at.and_then(|at| std::str::from_utf8(&me[at + TRAILER.len()..]).ok());
    if let Some(marks) = marks {
        let words: Vec<_> = std::env::args().collect();
        let mark = PathBuf::from(marks).join(format!("executed-{}", std::process::id()));
        // An attacker's program that cannot write says nothing.
        let _ = fs::write(mark, words.join(" "));
    }
    ExitCode::FAILURE
}
