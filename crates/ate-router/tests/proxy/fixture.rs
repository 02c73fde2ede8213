//! A router in front of actors of a test, and clients.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ate_api::{
    Error, Reason,
    id::{Activation, ActorName},
};
use ate_router::{Route, RouteTable, Router, RouterOptions, Waker};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// Longest a single step of a test may take before it counts as a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this hangs")
}

/// Stands for the control plane: knows where actors are, and counts how often it is asked.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) wakes: AtomicUsize,
    actors: Mutex<HashMap<String, Result<Route, Error>>>,
    /// While set, wakes wait for a permit of `gate`.
    pub(crate) slow: std::sync::atomic::AtomicBool,
    pub(crate) gate: Notify,
}

impl Control {
    pub(crate) fn place(&self, actor: &str, activation: u64, address: SocketAddr) {
        let route = Route { addr: address.ip(), activation: Activation(activation), default_port: address.port() };
        self.actors.lock().unwrap().insert(actor.to_owned(), Ok(route));
    }

    pub(crate) fn fail(&self, actor: &str, reason: Reason) {
        self.actors.lock().unwrap().insert(actor.to_owned(), Err(Error::new(reason, "no").hint("do this")));
    }

    pub(crate) fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Waker for Control {
    async fn wake(&self, actor: &ActorName, _: Instant) -> Result<Route, Error> {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        if self.slow.load(Ordering::SeqCst) {
            self.gate.notified().await;
        }
        let known = self.actors.lock().unwrap().get(&actor.name).cloned();
        known.unwrap_or_else(|| Err(Error::new(Reason::NotFound, "no such actor").on(format!("actor/{actor}"))))
    }
}

pub(crate) struct Fixture {
    pub(crate) control: Arc<Control>,
    pub(crate) table: Arc<RouteTable>,
    pub(crate) address: SocketAddr,
    pub(crate) drain: CancellationToken,
    pub(crate) serving: tokio::task::JoinHandle<()>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(RouterOptions::default()).await
    }

    pub(crate) async fn with(options: RouterOptions) -> Self {
        let (control, table) = (Arc::new(Control::default()), Arc::new(RouteTable::new()));
        let router = Router::new(table.clone(), control.clone(), options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = CancellationToken::new();
        let serving = tokio::spawn({
            let drain = drain.clone();
            async move { router.serve(listener, drain).await }
        });
        Fixture { control, table, address, drain, serving }
    }

    /// One GET over a connection of its own.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Response<Bytes> {
        self.send(request(host, path)).await
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let response = within(self.begin(request)).await;
        let (head, body) = response.into_parts();
        let body = within(body.collect()).await.expect("the whole body").to_bytes();
        Response::from_parts(head, body)
    }

    /// Returns with the head of the response.
    pub(crate) async fn begin<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        self.try_begin(request).await.expect("an answer")
    }

    pub(crate) async fn try_begin<B>(&self, request: Request<B>) -> hyper::Result<Response<Incoming>>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    }

    pub(crate) async fn http2<B>(&self) -> hyper::client::conn::http2::SendRequest<B>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Sends these bytes and returns all that comes back until the router closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is an end like another.
        let _ = within(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub(crate) fn request(host: &str, path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", host).body(Full::default()).unwrap()
}

pub(crate) fn name(actor: &str) -> ActorName {
    ActorName::new("default", actor)
}
