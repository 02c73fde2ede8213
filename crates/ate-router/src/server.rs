//! Takes connections in, within limits, and ends them in an orderly way.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{first_bytes::FirstBytes, forward, table::RouteTable, wake::Waker};

/// For the head of a request, the first as well as later ones: a connection that sends none is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request. Large cookies and tokens fit; a hostile client cannot fill the memory.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const MAX_HTTP2_STREAMS: u32 = 256;
/// An HTTP/2 client that does not answer a ping for that long is gone.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(20);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A peer that vanished without a word is noticed after idle + every × count = two minutes.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEP_ALIVE_COUNT: u32 = 4;
/// Pause after the system refused a connection for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone)]
pub struct RouterOptions {
    /// For everything until the actor is connected to: queueing, resuming, its port opening.
    pub wake_timeout: Duration,
    /// For the head of a request.
    pub head_timeout: Duration,
    /// Connections of clients at once; more wait in the listener's queue.
    pub max_connections: usize,
    /// For requests in flight when the router is told to stop.
    pub drain_timeout: Duration,
}

impl Default for RouterOptions {
    fn default() -> Self {
        RouterOptions {
            wake_timeout: Duration::from_secs(30),
            head_timeout: HEAD_TIMEOUT,
            max_connections: 16 * 1024,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The reverse proxy. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) table: Arc<RouteTable>,
    pub(crate) waker: Arc<dyn Waker>,
    pub(crate) options: RouterOptions,
    /// Ends tunnels when the router has stopped.
    pub(crate) stop: CancellationToken,
}

impl Router {
    pub fn new(table: Arc<RouteTable>, waker: Arc<dyn Waker>, options: RouterOptions) -> Self {
        Router { shared: Arc::new(Shared { table, waker, options, stop: CancellationToken::new() }) }
    }

    /// Serves until `drain` is cancelled; then lets requests in flight finish, within the drain timeout.
    pub async fn serve(&self, listener: TcpListener, drain: CancellationToken) {
        let shared = &self.shared;
        let builder = Arc::new(builder(&shared.options));
        let room = Arc::new(Semaphore::new(shared.options.max_connections));
        let graceful = GracefulShutdown::new();
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let seat = room.clone().acquire_owned().await.ok();
                (seat, listener.accept().await)
            };
            let (seat, accepted) = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("the router cannot accept connections: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            tune(&stream);
            let io = TokioIo::new(FirstBytes::new(stream, shared.options.head_timeout));
            let service = service(shared.clone(), peer);
            let connection = builder.serve_connection_with_upgrades(io, service).into_owned();
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                if let Err(e) = connection.await {
                    tracing::debug!(%peer, "connection of a client ended: {e}");
                }
                drop(seat);
            });
        }
        drop(listener);
        let _ = tokio::time::timeout(shared.options.drain_timeout, graceful.shutdown()).await;
        shared.stop.cancel();
    }
}

fn service(
    shared: Arc<Shared>,
    peer: SocketAddr,
) -> impl hyper::service::Service<
    http::Request<hyper::body::Incoming>,
    Response = http::Response<crate::body::Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<http::Response<crate::body::Body>, Infallible>> + Send + 'static,
> {
    // An address in text is a valid header value.
    let client = HeaderValue::from_str(&peer.ip().to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    service_fn(move |request| {
        let (shared, client) = (shared.clone(), client.clone());
        async move { Ok(forward::handle(&shared, &client, request).await) }
    })
}

fn builder(options: &RouterOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_concurrent_streams(MAX_HTTP2_STREAMS)
        .keep_alive_interval(HTTP2_PING_EVERY)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT);
    builder
}

/// No waiting to fill segments, and a peer that vanished is noticed. Best effort: the connection works without.
pub(crate) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_EVERY);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_COUNT);
}
