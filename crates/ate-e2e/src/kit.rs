//! The sandbox classes the lifecycle suite runs against: how to bring each one's binaries in, and nothing else. What a
//! class can do is asked of the system.

use crate::{RUNSC_A, RUNSC_B, given::Given, provided, runsc};

/// A class, the versions of its binaries that `script/setup` lays out, and where it is tried.
pub struct Kit {
    pub class: &'static str,
    /// The one that is used, and others.
    pub versions: &'static [Binaries],
    /// None: on a node of the test's own.
    pub cluster: Option<&'static Given>,
}

/// Where binaries come from, as `ate sandbox import` takes them.
pub enum Binaries {
    /// The class has none.
    None,
    /// A build of runsc.
    Runsc(&'static str),
    /// A directory below `.cache` with what a distribution ships.
    From(&'static str),
}

pub const GVISOR: Kit =
    Kit { class: "gvisor", versions: &[Binaries::Runsc(RUNSC_A), Binaries::Runsc(RUNSC_B)], cluster: None };
pub const MICROVM: Kit =
    Kit { class: "microvm", versions: &[Binaries::From("microvm/7.2"), Binaries::From("microvm/10.0")], cluster: None };
/// `examples/ateom-process`: no sandbox.
pub const PROCESS: Kit = Kit { class: "process", versions: &[Binaries::None], cluster: None };

impl Binaries {
    /// Further arguments of `ate sandbox import`; `None` if there is nothing to import.
    pub fn arguments(&self) -> Option<Vec<String>> {
        match self {
            Binaries::None => None,
            Binaries::Runsc(build) => Some(vec![format!("runsc={}", runsc(build).display())]),
            Binaries::From(dir) => Some(vec!["--from".to_owned(), provided(dir).display().to_string()]),
        }
    }
}
