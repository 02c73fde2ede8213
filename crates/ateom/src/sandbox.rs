//! What a sandbox class implements: one sandbox, driven step by step by the worker's state machine.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use ate_api::{Error, Reason};
use ate_sandbox::ClassDescriptor;

use crate::{
    driver::{Activation, Sandbox, Scope, SnapshotFile, Workload},
    process::Exit,
    steps::Steps,
};

/// What may be started before it is known who will run.
#[derive(Debug, Clone)]
pub struct Preparation {
    pub sandbox: Sandbox,
    pub workload: Workload,
    /// What new actors begin with, and what others were saved against.
    pub snapshot: Option<Snapshot>,
    /// A new actor is likely to come.
    pub standby: bool,
}

/// A verified snapshot on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// sha256 of its manifest.
    pub digest: String,
    pub dir: PathBuf,
}

/// Write an actor's state.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Empty, absolute.
    pub dir: PathBuf,
    pub scope: Scope,
    /// What the activation was restored from stays available: only what differs from it need be written.
    pub may_need_base: bool,
}

/// What a checkpoint wrote.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpointed {
    pub files: Vec<SnapshotFile>,
    /// They are useless without what the activation was restored from.
    pub needs_base: bool,
}

/// Who drives.
#[derive(Debug, Clone)]
pub struct Info {
    pub sandbox_class: String,
    pub driver_name: String,
    pub driver_version: String,
}

impl Info {
    /// In the same words as the class describes itself with.
    pub fn of(class: &ClassDescriptor) -> Self {
        Info {
            sandbox_class: class.name.clone(),
            driver_name: class.driver_name.clone(),
            driver_version: class.driver_version.clone(),
        }
    }
}

/// What binaries can do under a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Probed {
    pub capabilities: Vec<String>,
    pub versions: BTreeMap<String, String>,
}

/// Start an actor.
#[derive(Debug, Clone)]
pub struct Start {
    pub activation: Activation,
    pub sandbox: Sandbox,
    pub workload: Workload,
    pub source: Source,
    /// When the actor must be ready.
    pub deadline: tokio::time::Instant,
}

#[derive(Debug, Clone)]
pub enum Source {
    /// From its images.
    Boot,
    /// From a snapshot, and what it was saved against if it does not stand alone.
    Snapshot { snapshot: Snapshot, base: Option<Snapshot> },
}

/// An actor that ended by itself.
#[derive(Debug, Clone)]
pub struct Ended {
    /// "exited" or "killed".
    pub kind: &'static str,
    pub message: String,
}

impl Ended {
    /// The main process of the actor, or its sandbox, ended like this.
    pub fn by(exit: Exit) -> Self {
        let kind = if matches!(exit, Exit::Signal(_)) { "killed" } else { "exited" };
        Ended { kind, message: format!("the sandbox ended: {exit}") }
    }

    /// What a start says of it.
    pub fn too_early(exit: Exit) -> Error {
        Error::new(Reason::ActorExited, format!("the actor ended before it was ready ({exit})"))
    }
}

/// One worker's sandbox.
///
/// Calls come one at a time and in an order that makes sense; any of them may be dropped half-way, and then `reset`
/// follows. After an error of `prepare` or `start`, and before a `start` that a preparation was not made for, `reset`
/// follows as well.
#[async_trait]
pub trait Driver: Send + 'static {
    fn info(&self) -> Info;

    async fn probe(&mut self, sandbox: &Sandbox) -> Result<Probed, Error>;

    /// Starts what can be started before it is known who will run. Nothing, for a class that does not report `prepare`.
    async fn prepare(&mut self, preparation: &Preparation) -> Result<(), Error> {
        let _ = preparation;
        Ok(())
    }

    /// Starts an actor and waits until it is ready. Answers whether a preparation was used.
    async fn start(&mut self, start: &Start, steps: &mut Steps) -> Result<bool, Error>;

    /// Freezes the actor and writes its state into the directory. After an error the actor runs on, and the directory
    /// is empty.
    async fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<Checkpointed, Error>;

    /// Lets a frozen actor run on.
    async fn thaw(&mut self) -> Result<(), Error>;

    /// Ends and removes whatever has seen anything of an actor; what was started ahead and has not may stay for the
    /// next `prepare` or `start`. The next call may be any.
    async fn reset(&mut self) -> Result<(), Error>;

    /// Work for which an idle worker has time, such as making the next network namespace.
    async fn tidy(&mut self);

    /// Resolves when a started actor ends by itself. Pending while there is none. Safe to drop and call again.
    async fn ended(&mut self) -> Ended;

    /// The process whose memory counts as the sandbox's.
    fn sandbox_pid(&self) -> Option<u32>;
}
