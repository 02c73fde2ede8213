//! A rollout as it is stored: one per class, the last one there was.

use ate_api::{
    Error, Reason,
    id::{ObjectName, Uid},
};
use serde::{Deserialize, Serialize};

use super::{ConfigKey, Revision, now_ms};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RolloutPhase {
    /// A golden snapshot is made under the new revision.
    Building,
    /// It is restored once.
    Testing,
    /// Every golden snapshot passed; actors follow as the policy says.
    Moving,
    Paused,
    Done,
    Failed,
    Undone,
}

/// How actors that have a snapshot follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RolloutPolicy {
    /// Files-only snapshots at the next resume, whole ones when somebody boots them anew.
    NextResume,
    /// Those at rest are booted under the new revision, with their durable directories.
    Reboot,
    /// Not at all.
    Keep,
}

/// How many actors may be on the way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MaxUnavailable {
    Count(u64),
    /// Of those there were to move.
    Percent(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StepState {
    Waiting,
    Building,
    Testing,
    /// New actors begin with it.
    Passed,
    Failed,
}

/// One template on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) template: ObjectName,
    pub(crate) uid: Uid,
    /// What its golden snapshot was made under before.
    pub(crate) from: ConfigKey,
    pub(crate) state: StepState,
}

/// Why it does not go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) reason: String,
    pub(crate) object: String,
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) hint: String,
}

impl From<&Error> for Stopped {
    fn from(e: &Error) -> Self {
        Stopped {
            reason: e.reason.as_str().to_owned(),
            object: e.object.clone(),
            message: e.message.clone(),
            hint: e.hint.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rollout {
    pub(crate) uid: Uid,
    pub(crate) class: String,
    pub(crate) to: ConfigKey,
    pub(crate) policy: RolloutPolicy,
    pub(crate) max_unavailable: MaxUnavailable,
    pub(crate) phase: RolloutPhase,
    pub(crate) started_ms: i64,
    pub(crate) since_ms: i64,
    /// When the golden snapshot under way must be there (I5).
    #[serde(default)]
    pub(crate) deadline_ms: Option<i64>,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    /// Actors there were to move when the moving began.
    #[serde(default)]
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) stopped: Option<Stopped>,
    /// Nothing is left of golden snapshots that nobody needs any more.
    #[serde(default)]
    pub(crate) swept: bool,
}

impl RolloutPhase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            RolloutPhase::Building => "Building",
            RolloutPhase::Testing => "Testing",
            RolloutPhase::Moving => "Moving",
            RolloutPhase::Paused => "Paused",
            RolloutPhase::Done => "Done",
            RolloutPhase::Failed => "Failed",
            RolloutPhase::Undone => "Undone",
        }
    }

    /// It goes on by itself.
    pub(crate) fn is_active(self) -> bool {
        matches!(self, RolloutPhase::Building | RolloutPhase::Testing | RolloutPhase::Moving)
    }

    /// No other may be started for its class.
    pub(crate) fn is_under_way(self) -> bool {
        self.is_active() || self == RolloutPhase::Paused
    }
}

impl Rollout {
    pub(crate) fn object(&self) -> String {
        object(&self.class)
    }

    pub(crate) fn enter(&mut self, phase: RolloutPhase) {
        self.phase = phase;
        self.since_ms = now_ms();
        self.deadline_ms = None;
        self.swept = false;
    }

    /// Actors with files only, and whoever boots, start under its revision.
    pub(crate) fn moves_actors(&self) -> bool {
        matches!(self.phase, RolloutPhase::Moving | RolloutPhase::Done) && self.policy != RolloutPolicy::Keep
    }

    /// Whether it takes the place of a revision: of every one of the class that was there when it was started. What came
    /// later is newer than itself.
    pub(crate) fn replaces(&self, revision: &Revision) -> bool {
        revision.reference.class == self.class && revision.key() != self.to && revision.created_ms <= self.started_ms
    }

    pub(crate) fn step(&mut self, template: &Uid) -> Option<&mut Step> {
        self.steps.iter_mut().find(|s| s.uid == *template)
    }

    /// Actors that may be on the way at once.
    pub(crate) fn at_once(&self) -> usize {
        let allowed = match self.max_unavailable {
            MaxUnavailable::Count(n) => n,
            MaxUnavailable::Percent(p) => (self.total.saturating_mul(p)).div_ceil(100),
        };
        usize::try_from(allowed).unwrap_or(usize::MAX).max(1)
    }
}

/// As errors name it.
pub(crate) fn object(class: &str) -> String {
    format!("rollout/{class}")
}

impl std::str::FromStr for MaxUnavailable {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|p| (1..=100).contains(p)).map(MaxUnavailable::Percent),
            None => text.parse().ok().filter(|n| *n > 0).map(MaxUnavailable::Count),
        };
        parsed.ok_or_else(|| {
            Error::new(Reason::Invalid, "max unavailable must be a number above 0, or a percentage from 1% to 100%")
                .hint("for example 4 or 10%")
        })
    }
}

impl std::fmt::Display for MaxUnavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MaxUnavailable::Count(n) => write!(f, "{n}"),
            MaxUnavailable::Percent(p) => write!(f, "{p}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_unavailable_is_a_number_or_a_share_and_nothing_else() {
        assert_eq!("4".parse::<MaxUnavailable>().unwrap(), MaxUnavailable::Count(4));
        assert_eq!("10%".parse::<MaxUnavailable>().unwrap(), MaxUnavailable::Percent(10));
        for bad in ["", "0", "-1", "0%", "101%", "%", "a", "1.5"] {
            assert_eq!(bad.parse::<MaxUnavailable>().unwrap_err().reason, Reason::Invalid, "{bad:?}");
        }
    }
}
