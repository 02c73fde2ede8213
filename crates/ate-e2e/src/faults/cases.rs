//! What is put where.

use std::{collections::BTreeMap, fmt};

use super::points::{Kind, Place, Step};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process that reaches the point dies there.
    DiesBefore,
    DiesAfter,
    ErrorBefore,
    /// It was done, and the caller is told that it failed.
    ErrorAfter,
    Twice,
    /// The herder that holds the actor is killed while the server is at the point.
    HerderKilled,
    /// So is what runs in the sandbox.
    SandboxKilled,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub step: Step,
    pub fault: Fault,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {:?}", self.step.name, self.fault)
    }
}

impl Case {
    /// The name of the file that arms it.
    pub fn point(&self) -> String {
        let side = match self.fault {
            Fault::DiesBefore | Fault::ErrorBefore | Fault::HerderKilled | Fault::SandboxKilled => "before",
            Fault::DiesAfter | Fault::ErrorAfter => "after",
            Fault::Twice => "twice",
        };
        format!("{}.{side}", self.step.name)
    }

    /// What is in it.
    pub fn word(&self) -> &'static str {
        match self.fault {
            Fault::DiesBefore | Fault::DiesAfter => "abort",
            Fault::ErrorBefore | Fault::ErrorAfter | Fault::Twice => "error",
            Fault::HerderKilled | Fault::SandboxKilled => "hold",
        }
    }

    pub fn kills_from_outside(&self) -> bool {
        matches!(self.fault, Fault::HerderKilled | Fault::SandboxKilled)
    }
}

/// Every step with every fault that it can have.
pub fn all(steps: &BTreeMap<String, Step>) -> Vec<Case> {
    let mut cases = Vec::new();
    for step in steps.values() {
        let mut faults = vec![Fault::DiesBefore, Fault::DiesAfter];
        if step.kind != Kind::Plain {
            faults.push(Fault::ErrorBefore);
        }
        if matches!(step.kind, Kind::Answered | Kind::Repeatable) {
            faults.push(Fault::ErrorAfter);
        }
        if step.kind == Kind::Repeatable {
            faults.push(Fault::Twice);
        }
        if step.place == Place::Server {
            faults.extend([Fault::HerderKilled, Fault::SandboxKilled]);
        }
        cases.extend(faults.into_iter().map(|fault| Case { step: step.clone(), fault }));
    }
    cases
}
