//! The one record of an actor. Which worker it holds is recorded here and nowhere else.

use std::{collections::BTreeMap, net::IpAddr};

use ate_api::id::{Activation, Digest, ObjectName, Uid, WorkerId};
use serde::{Deserialize, Serialize};

use super::{ConfigKey, Snapshot, now_ms};

/// Events kept with an actor; enough to see what happened lately, few enough to keep the record small.
const MAX_EVENTS: usize = 8;
/// Longest message kept, in bytes.
const MAX_MESSAGE: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Suspended,
    Resuming,
    Running,
    Suspending,
    Pausing,
    Paused,
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Phase::Suspended => "Suspended",
            Phase::Resuming => "Resuming",
            Phase::Running => "Running",
            Phase::Suspending => "Suspending",
            Phase::Pausing => "Pausing",
            Phase::Paused => "Paused",
        }
    }

    /// Holds no worker and waits for nothing.
    pub(crate) fn is_at_rest(self) -> bool {
        matches!(self, Phase::Suspended | Phase::Paused)
    }
}

/// The worker an activation lives on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) worker: WorkerId,
    pub(crate) pool: ObjectName,
    pub(crate) address: Option<IpAddr>,
    pub(crate) sandbox: ConfigKey,
    pub(crate) platform: Digest,
    /// Manifest it was restored from.
    pub(crate) parent: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) at_ms: i64,
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ActorRecord {
    pub(crate) uid: Uid,
    pub(crate) template: ObjectName,
    pub(crate) template_uid: Uid,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) selector: BTreeMap<String, String>,
    /// Under which revision it is started from its image, whatever its pool runs. Golden actors of a rollout have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pinned: Option<ConfigKey>,
    /// Digest of the platform whose workers alone boot it. Golden actors made for a platform have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Digest>,
    pub(crate) phase: Phase,
    /// Fencing number: grows before every activation, never goes back (I1).
    pub(crate) activation: Activation,
    /// Highest generation number ever given to a capture, also to one that failed: a number means one attempt.
    pub(crate) last_generation: u64,
    #[serde(default)]
    pub(crate) seat: Option<Seat>,
    #[serde(default)]
    pub(crate) snapshot: Option<Snapshot>,
    /// The last one in object storage while the current one is on one node only.
    #[serde(default)]
    pub(crate) fallback: Option<Snapshot>,
    /// When the transient phase must be over (I5).
    #[serde(default)]
    pub(crate) deadline_ms: Option<i64>,
    pub(crate) created_ms: i64,
    pub(crate) since_ms: i64,
    /// Activations that ended before they could commit.
    #[serde(default)]
    pub(crate) lost: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<Event>,
}

impl ActorRecord {
    pub(crate) fn new(template: ObjectName, template_uid: Uid, selector: BTreeMap<String, String>) -> Self {
        let now = now_ms();
        ActorRecord {
            uid: Uid::generate(),
            template,
            template_uid,
            selector,
            pinned: None,
            platform: None,
            phase: Phase::Suspended,
            activation: Activation(0),
            last_generation: 0,
            seat: None,
            snapshot: None,
            fallback: None,
            deadline_ms: None,
            created_ms: now,
            since_ms: now,
            lost: 0,
            message: String::new(),
            events: Vec::new(),
        }
    }

    /// Enters a phase. Only transient ones have a deadline.
    pub(crate) fn enter(&mut self, phase: Phase, timeout: Option<std::time::Duration>) {
        self.phase = phase;
        self.since_ms = now_ms();
        self.deadline_ms = timeout.map(|t| self.since_ms + t.as_millis() as i64);
    }

    /// Gives up the worker and goes back to what was last committed.
    pub(crate) fn fall_back_to_rest(&mut self) {
        use super::Location;
        let paused = matches!(self.snapshot, Some(Snapshot { location: Location::Node(_), .. }));
        self.enter(if paused { Phase::Paused } else { Phase::Suspended }, None);
        self.seat = None;
    }

    pub(crate) fn tell(&mut self, reason: &str, message: impl Into<String>) {
        let message = truncated(message.into());
        if self.events.len() >= MAX_EVENTS {
            self.events.remove(0);
        }
        self.message.clone_from(&message);
        self.events.push(Event { at_ms: now_ms(), reason: reason.to_owned(), message });
    }

    pub(crate) fn generation(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |s| s.generation)
    }
}

fn truncated(mut s: String) -> String {
    if s.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE;
        while !s.is_char_boundary(end) {
            end -= 1;
        }
        s.truncate(end);
    }
    s
}
