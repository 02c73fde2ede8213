//! Who sits on a worker, what may be asked of it, and what it answers.

use std::{collections::BTreeMap, time::Duration};

use ate_agent::{ActorIdentity, Captured, PrepareKey};
use ate_api::{
    Error, Reason,
    id::{Activation, ObjectName, Uid},
};
use ate_sandbox::SandboxRef;
use ate_snapshot::manifest::{Driver, Image};
use ateom::driver as pb;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::client::{Client, Start};

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// One activation of an actor, and everything its snapshots will have to say about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) actor: ActorIdentity,
    pub(crate) activation: Activation,
    pub(crate) template: ObjectName,
    pub(crate) template_uid: Uid,
    pub(crate) spec_digest: ate_api::id::Digest,
    pub(crate) images: Vec<Image>,
    pub(crate) sandbox: SandboxRef,
    /// What the herder can tell differences from: the base of the snapshot it was restored from, or that one.
    pub(crate) base: Option<ate_api::id::Digest>,
}

impl Seat {
    pub(crate) fn is(&self, actor: &Uid, activation: Activation) -> bool {
        self.actor.uid == *actor && self.activation == activation
    }
}

/// What a start gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) address: std::net::Ipv4Addr,
    pub(crate) prepared: bool,
    pub(crate) steps_us: BTreeMap<String, u64>,
}

/// How a capture begins.
pub(crate) enum Capturing {
    /// It was done before; the answer is the same.
    Done(Box<Captured>),
    /// Go on: the actor is this capture's until it ends.
    Begun(Box<Begun>),
}

pub(crate) struct Begun {
    pub(crate) client: Client,
    pub(crate) seat: Box<Seat>,
    pub(crate) driver: Driver,
}

pub(crate) enum Command {
    Prepare {
        key: PrepareKey,
        request: Box<pb::PrepareRequest>,
        reply: Reply<()>,
    },
    Start {
        seat: Box<Seat>,
        start: Start,
        limit: Duration,
        reply: Reply<Started>,
    },
    BeginCapture {
        actor: Uid,
        activation: Activation,
        generation: u64,
        reply: Reply<Capturing>,
    },
    /// `None`: it failed, the actor goes on.
    EndCapture {
        actor: Uid,
        activation: Activation,
        generation: u64,
        captured: Option<Box<Captured>>,
        reply: Reply<()>,
    },
    /// Answers with a finished capture that is now void.
    Thaw {
        actor: Uid,
        activation: Activation,
        generation: u64,
        reply: Reply<Option<Box<Captured>>>,
    },
    Release {
        actor: Uid,
        activation: Activation,
        reply: Reply<()>,
    },
    /// Another list of revoked binaries is in force. Answered when nothing is left of what was started ahead under one on
    /// it; an actor that runs goes on.
    Revoked {
        reply: Reply<()>,
    },
}

pub(crate) fn fenced(message: impl Into<String>) -> Error {
    Error::new(Reason::Fenced, message)
}
