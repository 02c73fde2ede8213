//! An HTTP/1.1 connection to an actor, driven by whoever uses it.
//!
//! A connection with a task of its own costs two hops between tasks for each request. Here the request's own task
//! reads and writes the socket, and between requests nobody does.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Runs the connection; ready when it has ended or was upgraded.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// The socket's side of a connection. Its route can take it away at any time.
struct Wire {
    driver: Mutex<Option<Driver>>,
}

impl Wire {
    /// Reads and writes what can be. Ready: there is no connection any more.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut driver = self.lock();
        let Some(running) = driver.as_mut() else { return Poll::Ready(()) };
        let Poll::Ready(ended) = running.as_mut().poll(cx) else { return Poll::Pending };
        if let Err(e) = ended {
            tracing::debug!("connection to an actor ended: {e}");
        }
        *driver = None;
        Poll::Ready(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Driver>> {
        // A driver that panicked is not polled again: whoever waits for it gets an error from hyper.
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way for the route to close a connection that somebody else uses.
pub(crate) struct Cutter(Weak<Wire>);

impl Cutter {
    /// Closes the socket now. Whoever waits for an answer or a body gets an error.
    pub(crate) fn cut(&self) {
        if let Some(wire) = self.0.upgrade() {
            // Dropped after the lock is released: dropping wakes others.
            let driver = wire.lock().take();
            drop(driver);
        }
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.0.strong_count() == 0
    }
}

pub(crate) struct Http1 {
    sender: http1::SendRequest<Incoming>,
    wire: Arc<Wire>,
}

impl Http1 {
    pub(crate) async fn handshake(stream: TcpStream) -> hyper::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver: Driver = Box::pin(connection.with_upgrades());
        Ok(Http1 { sender, wire: Arc::new(Wire { driver: Mutex::new(Some(driver)) }) })
    }

    pub(crate) fn cutter(&self) -> Cutter {
        Cutter(Arc::downgrade(&self.wire))
    }

    /// Whether it can take a request: finishes what the last one left, and notices if the actor closed meanwhile.
    pub(crate) fn poll_usable(&mut self, cx: &mut Context<'_>) -> bool {
        self.wire.poll(cx).is_pending() && self.sender.is_ready()
    }

    /// Sends a request and drives the connection until the head of the answer is there.
    pub(crate) async fn send(
        &mut self,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Incoming>>> {
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        std::future::poll_fn(|cx| {
            // An end of the connection shows in the answer.
            let _ = self.wire.poll(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Drives the connection while a body is read.
    pub(crate) fn drive(&self, cx: &mut Context<'_>) {
        let _ = self.wire.poll(cx);
    }

    /// Drives the connection to its end, which is right away after an upgrade.
    pub(crate) async fn finish(self) {
        std::future::poll_fn(|cx| self.wire.poll(cx)).await;
    }
}
