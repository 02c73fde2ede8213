//! The node's end of the driver contract: one connection per worker over its unix socket, a limit on every call.

use std::{fs::File, os::fd::AsRawFd, time::Duration};

use ate_api::{Error, Reason};
use ateom::{
    CONTRACT_VERSION,
    driver::{self as pb, driver_client::DriverClient},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

/// The herder answers these from memory.
const QUICK: Duration = Duration::from_secs(10);
/// The herder itself allows 60 s.
const PREPARE: Duration = Duration::from_secs(75);
/// What the herder needs beyond the time it was given, to clean up and to answer.
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Client {
    driver: DriverClient<Channel>,
}

/// How an actor is started.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    Run(Box<pb::RunRequest>),
    Restore(Box<pb::RestoreRequest>),
}

impl Client {
    /// Connects and waits until the herder serves, which it does once its network is up.
    pub(crate) async fn connect(
        dir: File,
        socket: &str,
        limit: Duration,
    ) -> Result<(Self, pb::GetInfoResponse), Error> {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            // Through the descriptor, because the whole path may be longer than a socket's address can be.
            let socket = format!("/proc/self/fd/{}/{socket}", dir.as_raw_fd());
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        // The address is only the HTTP authority.
        let endpoint = Endpoint::from_static("http://herder");
        let connected = async {
            let channel = endpoint.connect_with_connector(connector).await.map_err(|e| unreachable(&e))?;
            let mut driver = DriverClient::new(channel);
            let info = driver.get_info(pb::GetInfoRequest {}).await.map_err(from_status)?.into_inner();
            Ok::<_, Error>((Client { driver }, info))
        };
        let (client, info) = timeout(limit, connected).await.map_err(|_| late("connecting to the herder", limit))??;
        if info.contract_version != CONTRACT_VERSION {
            let message =
                format!("the herder speaks contract {}, needed is contract {CONTRACT_VERSION}", info.contract_version);
            return Err(Error::new(Reason::ClassMismatch, message).hint("install herders and node from one build"));
        }
        Ok((client, info))
    }

    pub(crate) async fn probe(&self, sandbox: pb::Sandbox) -> Result<pb::ProbeResponse, Error> {
        let mut driver = self.driver.clone();
        call("asking the binaries", PREPARE, driver.probe(pb::ProbeRequest { sandbox: Some(sandbox) })).await
    }

    pub(crate) async fn prepare(&self, request: pb::PrepareRequest) -> Result<(), Error> {
        let mut driver = self.driver.clone();
        call("preparing a sandbox", PREPARE, driver.prepare(request)).await.map(|_| ())
    }

    pub(crate) async fn start(&self, start: Start, limit: Duration) -> Result<pb::Outcome, Error> {
        let mut driver = self.driver.clone();
        let limit = limit + MARGIN;
        let outcome = match start {
            Start::Run(run) => call("starting the actor", limit, driver.run(*run)).await?.outcome,
            Start::Restore(restore) => call("restoring the actor", limit, driver.restore(*restore)).await?.outcome,
        };
        Ok(outcome.unwrap_or_default())
    }

    pub(crate) async fn checkpoint(
        &self,
        request: pb::CheckpointRequest,
        limit: Duration,
    ) -> Result<pb::CheckpointResponse, Error> {
        let mut driver = self.driver.clone();
        call("writing the snapshot", limit, driver.checkpoint(request)).await
    }

    pub(crate) async fn thaw(&self, activation: u64) -> Result<(), Error> {
        let mut driver = self.driver.clone();
        call("thawing the actor", QUICK, driver.thaw(pb::ThawRequest { activation })).await.map(|_| ())
    }

    pub(crate) async fn reset(&self, limit: Duration) -> Result<(), Error> {
        let mut driver = self.driver.clone();
        call("cleaning the worker", limit, driver.reset(pb::ResetRequest {})).await.map(|_| ())
    }

    pub(crate) async fn info(&self) -> Result<pb::GetInfoResponse, Error> {
        let mut driver = self.driver.clone();
        call("asking the herder", QUICK, driver.get_info(pb::GetInfoRequest {})).await
    }

    /// Told that it is beyond use. It may be too far gone to hear it.
    pub(crate) async fn end(&self) {
        let mut driver = self.driver.clone();
        if let Err(e) = call("ending the herder", QUICK, driver.end(pb::EndRequest {})).await {
            tracing::warn!("{e}");
        }
    }

    pub(crate) async fn stats(&self) -> Result<pb::StatsResponse, Error> {
        let mut driver = self.driver.clone();
        call("asking the herder", QUICK, driver.stats(pb::StatsRequest {})).await
    }

    pub(crate) async fn events(&self) -> Result<tonic::Streaming<pb::Event>, Error> {
        let mut driver = self.driver.clone();
        call("listening to the herder", QUICK, driver.events(pb::EventsRequest {})).await
    }
}

/// `CLASS_MISMATCH` if the herder is of another.
pub(super) fn of_class(info: &pb::GetInfoResponse, class: &str) -> Result<(), Error> {
    if info.sandbox_class == class {
        return Ok(());
    }
    let message = format!("the herder is of class {}, needed is class {class}", info.sandbox_class);
    Err(Error::new(Reason::ClassMismatch, message).hint("use the herder that belongs to the class"))
}

async fn call<T>(
    what: &str,
    limit: Duration,
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    match timeout(limit, rpc).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(from_status),
        Err(_) => Err(late(what, limit)),
    }
}

fn from_status(status: Status) -> Error {
    Error::from(&status)
}

fn late(what: &str, limit: Duration) -> Error {
    Error::new(Reason::DeadlineExceeded, format!("{what} took longer than {limit:?}"))
}

fn unreachable(e: &tonic::transport::Error) -> Error {
    let cause = std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string);
    Error::new(Reason::WorkerLost, format!("cannot connect to the herder: {cause}"))
}
