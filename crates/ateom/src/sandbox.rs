//! What a sandbox class implements: one sandbox, driven step by step by the worker's state machine.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use ate_api::Error;

use crate::{
    driver::{Activation, Sandbox, Scope, SnapshotFile, Workload},
    steps::Steps,
};

/// Who drives.
#[derive(Debug, Clone)]
pub struct Info {
    pub sandbox_class: String,
    pub driver_name: String,
    pub driver_version: String,
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
    /// From a directory with the files of a snapshot.
    Snapshot(PathBuf),
}

/// An actor that ended by itself.
#[derive(Debug, Clone)]
pub struct Ended {
    /// "exited" or "killed".
    pub kind: &'static str,
    pub message: String,
}

/// One worker's sandbox.
///
/// Calls come one at a time and in an order that makes sense; any of them may be dropped half-way, and then `reset`
/// follows. After an error of `prepare` or `start`, `reset` follows as well.
#[async_trait]
pub trait Driver: Send + 'static {
    fn info(&self) -> Info;

    async fn probe(&mut self, sandbox: &Sandbox) -> Result<Probed, Error>;

    /// Starts what can be started before it is known who will run.
    async fn prepare(&mut self, sandbox: &Sandbox, workload: &Workload) -> Result<(), Error>;

    /// Starts an actor and waits until it is ready. Answers whether a preparation was used.
    async fn start(&mut self, start: &Start, steps: &mut Steps) -> Result<bool, Error>;

    /// Freezes the actor and writes its state into `dir`. After an error the actor runs on, and `dir` is empty.
    async fn checkpoint(&mut self, dir: PathBuf, scope: Scope) -> Result<Vec<SnapshotFile>, Error>;

    /// Lets a frozen actor run on.
    async fn thaw(&mut self) -> Result<(), Error>;

    /// Ends and removes everything. The next call may be any.
    async fn reset(&mut self) -> Result<(), Error>;

    /// Work for which an idle worker has time, such as making the next network namespace.
    async fn tidy(&mut self);

    /// Resolves when a started actor ends by itself. Pending while there is none. Safe to drop and call again.
    async fn ended(&mut self) -> Ended;

    /// The process whose memory counts as the sandbox's.
    fn sandbox_pid(&self) -> Option<u32>;
}
