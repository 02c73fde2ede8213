//! Servers that stand for actors. Each says its name, so that a test sees who answered.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

pub(crate) struct Actor {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Actor {
    /// Listens on a free port of loopback and answers with `name`, and by path as [`answer`] says.
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::start_on(name, SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0)).await
    }

    pub(crate) async fn start_on(name: &'static str, address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn({
            let connections = connections.clone();
            async move {
                let mut tasks = tokio::task::JoinSet::new();
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    connections.fetch_add(1, Ordering::SeqCst);
                    tasks.spawn(async move {
                        let service = service_fn(move |request| answer(name, request));
                        let builder = auto::Builder::new(TokioExecutor::new());
                        let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                    });
                }
            }
        });
        Actor { address, connections, task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

async fn answer(name: &'static str, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        // What arrived, for tests of what the router changes.
        "/echo-head" => {
            let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
            for (name, value) in request.headers() {
                text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
            }
            let mut response = Response::new(full(text));
            response.headers_mut().insert("connection", HeaderValue::from_static("x-private"));
            response.headers_mut().insert("x-private", HeaderValue::from_static("for the next hop only"));
            response.headers_mut().insert("x-public", HeaderValue::from_static("yes"));
            response
        }
        "/echo" => Response::new(request.into_body().map_err(std::io::Error::other).boxed()),
        // A gRPC-like answer: the status is in the trailers.
        "/trailers" => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(BodyExt::boxed(StreamBody::new(futures::stream::iter(frames))));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            response
        }
        // Sends a line for each line it is sent, and ends when the request does.
        "/line-by-line" => {
            let body = request.into_body().into_data_stream();
            use futures::StreamExt;
            let lines = body.map(|chunk| chunk.map(Frame::data).map_err(std::io::Error::other));
            Response::new(BodyExt::boxed(StreamBody::new(lines)))
        }
        "/dies-midway" => {
            let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"some")))]);
            let then = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("the actor dies"))
            });
            use futures::StreamExt;
            Response::new(BodyExt::boxed(StreamBody::new(first.chain(then))))
        }
        // Begins to answer and then never goes on.
        "/hangs" => {
            let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"some")))]);
            use futures::StreamExt;
            Response::new(BodyExt::boxed(StreamBody::new(first.chain(futures::stream::pending()))))
        }
        _ => Response::new(full(name)),
    })
}
