//! The driver contract over gRPC: turns requests into commands for the worker, and errors into statuses.

use std::pin::Pin;

use ate_api::{Error, Reason};
use futures::{Stream, StreamExt};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status as GrpcStatus};

use crate::{
    CONTRACT_VERSION,
    driver::{self as pb, driver_server},
    sandbox::{Checkpointed, Info, Source, Start},
    stats,
    worker::{self, Command, Reply, Status, parts},
};

pub(crate) struct Server {
    pub(crate) info: Info,
    /// Of this process alone.
    pub(crate) instance: String,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) resets: mpsc::Sender<Reply<()>>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) events: broadcast::Sender<pb::Event>,
    /// Nobody is started any more.
    pub(crate) leaving: CancellationToken,
    pub(crate) end_now: CancellationToken,
}

type Answer<T> = Result<Response<T>, GrpcStatus>;

impl Server {
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, GrpcStatus> {
        let (tx, rx) = oneshot::channel();
        self.commands.send(command(tx)).await.map_err(|_| gone())?;
        // No reply: a Reset cut the operation short.
        rx.await.map_err(|_| Error::new(Reason::Conflict, "the worker was reset meanwhile"))?.map_err(Into::into)
    }

    async fn start(
        &self,
        activation: Option<pb::Activation>,
        sandbox: Option<pb::Sandbox>,
        workload: Option<pb::Workload>,
        source: Source,
    ) -> Result<pb::Outcome, GrpcStatus> {
        if self.leaving.is_cancelled() {
            return Err(Error::new(Reason::WorkerLost, "the worker is about to end").into());
        }
        let (sandbox, workload) = parts(sandbox, workload)?;
        let activation = activation.ok_or_else(|| Error::new(Reason::Invalid, "the request has no activation"))?;
        let deadline = tokio::time::Instant::now() + worker::start_limit(activation.timeout_ms);
        let start = Box::new(Start { activation, sandbox, workload, source, deadline });
        self.ask(|reply| Command::Start(start, reply)).await
    }
}

#[tonic::async_trait]
impl driver_server::Driver for Server {
    async fn get_info(&self, _: Request<pb::GetInfoRequest>) -> Answer<pb::GetInfoResponse> {
        let Info { sandbox_class, driver_name, driver_version } = self.info.clone();
        Ok(Response::new(pb::GetInfoResponse {
            sandbox_class,
            driver_name,
            driver_version,
            contract_version: CONTRACT_VERSION,
            instance: self.instance.clone(),
        }))
    }

    async fn probe(&self, request: Request<pb::ProbeRequest>) -> Answer<pb::ProbeResponse> {
        let sandbox = request.into_inner().sandbox;
        let sandbox = sandbox.ok_or_else(|| Error::new(Reason::Invalid, "the request has no sandbox"))?;
        let probed = self.ask(|reply| Command::Probe(sandbox, reply)).await?;
        let versions = probed.versions.into_iter().collect();
        Ok(Response::new(pb::ProbeResponse { capabilities: probed.capabilities, versions }))
    }

    async fn prepare(&self, request: Request<pb::PrepareRequest>) -> Answer<pb::PrepareResponse> {
        self.ask(|reply| Command::Prepare(request.into_inner(), reply)).await?;
        Ok(Response::new(pb::PrepareResponse {}))
    }

    async fn run(&self, request: Request<pb::RunRequest>) -> Answer<pb::RunResponse> {
        let pb::RunRequest { activation, sandbox, workload } = request.into_inner();
        let outcome = self.start(activation, sandbox, workload, Source::Boot).await?;
        Ok(Response::new(pb::RunResponse { outcome: Some(outcome) }))
    }

    async fn restore(&self, request: Request<pb::RestoreRequest>) -> Answer<pb::RestoreResponse> {
        let pb::RestoreRequest { activation, sandbox, workload, snapshot, base } = request.into_inner();
        let base = base.map(worker::snapshot).transpose()?;
        let missing = || Error::new(Reason::Invalid, "the request has no snapshot");
        let source = Source::Snapshot { snapshot: worker::snapshot(snapshot.ok_or_else(missing)?)?, base };
        let outcome = self.start(activation, sandbox, workload, source).await?;
        Ok(Response::new(pb::RestoreResponse { outcome: Some(outcome) }))
    }

    async fn checkpoint(&self, request: Request<pb::CheckpointRequest>) -> Answer<pb::CheckpointResponse> {
        let Checkpointed { files, needs_base } =
            self.ask(|reply| Command::Checkpoint(request.into_inner(), reply)).await?;
        Ok(Response::new(pb::CheckpointResponse { files, needs_base }))
    }

    async fn thaw(&self, request: Request<pb::ThawRequest>) -> Answer<pb::ThawResponse> {
        self.ask(|reply| Command::Thaw(request.into_inner().activation, reply)).await?;
        Ok(Response::new(pb::ThawResponse {}))
    }

    async fn reset(&self, _: Request<pb::ResetRequest>) -> Answer<pb::ResetResponse> {
        let (tx, rx) = oneshot::channel();
        self.resets.send(tx).await.map_err(|_| gone())?;
        rx.await.map_err(|_| gone())??;
        Ok(Response::new(pb::ResetResponse {}))
    }

    async fn end(&self, _: Request<pb::EndRequest>) -> Answer<pb::EndResponse> {
        self.end_now.cancel();
        Ok(Response::new(pb::EndResponse {}))
    }

    async fn stats(&self, _: Request<pb::StatsRequest>) -> Answer<pb::StatsResponse> {
        let status = self.status.borrow().clone();
        Ok(Response::new(pb::StatsResponse {
            state: status.state.into(),
            activation: status.activation,
            actor_uid: status.actor_uid,
            memory_bytes: status.sandbox_pid.map_or(0, stats::memory_bytes),
            prepared_key: status.prepared_key,
        }))
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<pb::Event, GrpcStatus>> + Send>>;

    async fn events(&self, _: Request<pb::EventsRequest>) -> Answer<Self::EventsStream> {
        // A reader that lags loses old events, which Stats makes up for: the state says Ended.
        let events = BroadcastStream::new(self.events.subscribe()).filter_map(|e| async { e.ok().map(Ok) });
        Ok(Response::new(Box::pin(events)))
    }
}

fn gone() -> GrpcStatus {
    Error::new(Reason::Unavailable, "the herder is ending").into()
}
