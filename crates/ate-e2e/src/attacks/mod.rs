//! The attack suite: what an attacker would try, each a real attempt against a running node.
//!
//! An attempt gives how it was stopped: by a typed error, or by the node going on with the bytes that were verified. An
//! attempt that succeeds panics. After each one nothing of the attacker's has been executed or written, and the node
//! serves others as before.

mod archives;
mod assets;
mod binaries;
mod bucket;
mod forge;
mod images;
mod machines;
mod payload;
mod range;
mod records;
mod tar;
mod trailer;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub use range::Range;

/// How an attack ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// With this reason.
    Refused(&'static str),
    /// The actor went on, under what was verified.
    Harmless,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::Refused(reason) => f.write_str(reason),
            Stopped::Harmless => f.write_str("went on with what was verified"),
        }
    }
}

/// What became of one attack: how it was stopped, or what went wrong.
pub struct Outcome {
    pub name: &'static str,
    pub stopped: Result<Stopped, String>,
}

/// A table of attacks on one subject.
type Table = &'static [(&'static str, fn(&mut Range) -> Stopped)];

/// Attacks on one node.
pub struct Suite {
    pub class: &'static str,
    range: fn() -> Range,
    tables: &'static [Table],
}

/// Everything, and on a node of another class what is different there.
pub const SUITES: [Suite; 2] = [
    Suite {
        class: "gvisor",
        range: Range::start,
        tables: &[
            bucket::ATTACKS,
            records::ATTACKS,
            assets::ATTACKS,
            binaries::ATTACKS,
            archives::ATTACKS,
            images::ATTACKS,
        ],
    },
    Suite { class: "microvm", range: Range::of_machines, tables: &[machines::ATTACKS] },
];

impl Suite {
    /// All of them against one node, after it was shown that the alarm works.
    pub fn run(&self, mut each: impl FnMut(&Outcome)) -> Vec<Outcome> {
        let mut range = (self.range)();
        let attacks = self.tables.iter().copied().flatten();
        let outcomes = attacks.map(|&(name, attempt)| {
            let outcome = Outcome { name, stopped: try_one(&mut range, attempt) };
            each(&outcome);
            outcome
        });
        outcomes.collect()
    }
}

/// Tries it, and looks at what is left.
fn try_one(range: &mut Range, attempt: fn(&mut Range) -> Stopped) -> Result<Stopped, String> {
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let stopped = attempt(range);
        range.is_unharmed();
        stopped
    }));
    tried.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })
}
