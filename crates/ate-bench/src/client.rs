//! The clients the measurements use: one HTTP/1.1 connection, and the control API.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use ate_api::ateapi::{ActorRef, ResumeActorRequest, SuspendActorRequest, control_client::ControlClient};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::transport::{Channel, Endpoint};

/// No request of a measurement may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// One kept-alive connection that sends every request to the same host name.
pub(crate) struct Http {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr, host: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Http { sender, host: host.to_owned() })
    }

    /// Milliseconds until the head of a 200 was there.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<f64> {
        let request = Request::get(path).header("host", &self.host).body(Empty::new())?;
        let began = Instant::now();
        self.sender.ready().await?;
        let response = timeout(PATIENCE, self.sender.send_request(request)).await.context("no answer")??;
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(ms)
    }
}

/// `ateapi.Control` of one node.
pub(crate) struct Api(ControlClient<Channel>);

impl Api {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(url.to_owned())?.connect().await?;
        Ok(Api(ControlClient::new(channel)))
    }

    /// Milliseconds of the call; the worker is free again when it returns.
    pub(crate) async fn suspend(&mut self, actor: &str) -> anyhow::Result<f64> {
        let began = Instant::now();
        self.0.suspend_actor(SuspendActorRequest { actor_ref: Some(reference(actor)) }).await?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }
}

impl Api {
    /// Milliseconds of a start from the images, whatever the actor had in memory.
    pub(crate) async fn boot(&mut self, actor: &str) -> anyhow::Result<f64> {
        let began = Instant::now();
        self.0.resume_actor(ResumeActorRequest { actor_ref: Some(reference(actor)), boot: true }).await?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }
}

fn reference(actor: &str) -> ActorRef {
    ActorRef { atespace: "default".to_owned(), name: actor.to_owned() }
}
