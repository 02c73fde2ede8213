//! The connections of one route. They belong to it alone, so none survives the activation it was made for.

use std::{
    io::ErrorKind,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{
    route::OpenRoute,
    wire::{Cutter, Http1},
};

/// An idle connection older than this is not used again: servers close theirs after as little as two seconds, and
/// a request that meets such a close would fail for nothing. A new connection costs a tenth of a millisecond.
const MAX_IDLE_TIME: Duration = Duration::from_millis(1500);
/// Idle connections kept for one route.
const MAX_IDLE: usize = 64;
/// For one attempt. Workers are a bridge or a rack away: what does not answer by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that just started or was just restored may not listen yet: for this long after the route opened, a
/// refused connection is tried again, this often.
const STARTING_TIME: Duration = Duration::from_secs(5);
const STARTING_RETRY: Duration = Duration::from_millis(5);

pub(crate) type Http2 = http2::SendRequest<Incoming>;

#[derive(Default)]
pub(crate) struct Pools {
    idle: Mutex<Vec<Idle>>,
    /// Every HTTP/1.1 connection there is, in use or not.
    cutters: Mutex<Vec<Cutter>>,
    http2: Mutex<Vec<(u16, Http2)>>,
}

struct Idle {
    port: u16,
    connection: Http1,
    since: Instant,
}

/// Why there is no connection. No byte of a request was sent.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The host is there, nothing listens on the port.
    Refused,
    /// Nothing answers at the address.
    Unreachable(std::io::Error),
    /// The route was closed meanwhile.
    Cut,
    Deadline,
    /// It listens but does not speak HTTP.
    Protocol(hyper::Error),
}

impl Pools {
    /// Takes a connection that can be used now.
    pub(crate) async fn take_http1(&self, port: u16) -> Option<Http1> {
        while let Some(mut connection) = self.take_idle(port) {
            let usable = std::future::poll_fn(|cx| std::task::Poll::Ready(connection.poll_usable(cx)));
            if usable.await {
                return Some(connection);
            }
        }
        None
    }

    /// The latest used is the likeliest to be alive, and lets the others grow old.
    fn take_idle(&self, port: u16) -> Option<Http1> {
        let mut idle = lock(&self.idle);
        if idle.first().is_some_and(|oldest| oldest.since.elapsed() > MAX_IDLE_TIME) {
            idle.retain(|i| i.since.elapsed() <= MAX_IDLE_TIME);
        }
        let latest = idle.iter().rposition(|i| i.port == port)?;
        Some(idle.remove(latest).connection)
    }

    pub(crate) fn give_back_http1(&self, port: u16, connection: Http1) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(Idle { port, connection, since: Instant::now() });
        }
    }

    /// A handle on the shared connection, if it lives.
    pub(crate) fn http2(&self, port: u16) -> Option<Http2> {
        let mut open = lock(&self.http2);
        open.retain(|(_, sender)| !sender.is_closed());
        open.iter().find(|(p, _)| *p == port).map(|(_, sender)| sender.clone())
    }

    /// Closes the sockets of all HTTP/1.1 connections before it returns. Call after the route's token is cancelled,
    /// which ends the others and lets no new one in.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *lock(&self.cutters)).iter().for_each(Cutter::cut);
        lock(&self.idle).clear();
    }
}

impl OpenRoute {
    /// A new HTTP/1.1 connection, fit for upgrades.
    pub(crate) async fn connect_http1(&self, port: u16, deadline: Instant) -> Result<Http1, ConnectError> {
        let stream = self.connect(port, deadline).await?;
        let connection = Http1::handshake(stream).await.map_err(ConnectError::Protocol)?;
        let mut cutters = lock(&self.pools.cutters);
        // Asked under the lock that `cut` takes: either it sees this connection or we see that it was there.
        if self.cut.is_cancelled() {
            return Err(ConnectError::Cut);
        }
        if cutters.len() == cutters.capacity() {
            cutters.retain(|cutter| !cutter.is_spent());
        }
        cutters.push(connection.cutter());
        Ok(connection)
    }

    /// A new HTTP/2 connection, shared by all requests for the port. Its task ends with it or with the route.
    pub(crate) async fn connect_http2(&self, port: u16, deadline: Instant) -> Result<Http2, ConnectError> {
        let io = TokioIo::new(self.connect(port, deadline).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(ConnectError::Protocol)?;
        let cut = self.cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                // Asked first: a cut connection writes nothing more.
                biased;
                () = cut.cancelled() => {}
                ended = connection => {
                    if let Err(e) = ended {
                        tracing::debug!("HTTP/2 connection to an actor ended: {e}");
                    }
                }
            }
        });
        lock(&self.pools.http2).push((port, sender.clone()));
        Ok(sender)
    }

    async fn connect(&self, port: u16, deadline: Instant) -> Result<TcpStream, ConnectError> {
        loop {
            let until = deadline.min(Instant::now() + CONNECT_TIMEOUT);
            let attempt = tokio::time::timeout_at(until.into(), TcpStream::connect((self.route.addr, port)));
            let attempt = tokio::select! {
                // Asked first, so that a connection made after the route closed, maybe to somebody else, is not used.
                biased;
                () = self.cut.cancelled() => return Err(ConnectError::Cut),
                attempt = attempt => attempt,
            };
            match attempt {
                Ok(Ok(stream)) => {
                    crate::server::tune(&stream);
                    return Ok(stream);
                }
                Ok(Err(e)) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
                    if self.opened.elapsed() > STARTING_TIME {
                        return Err(ConnectError::Refused);
                    }
                }
                Ok(Err(e)) => return Err(ConnectError::Unreachable(e)),
                Err(_) if Instant::now() < deadline => {
                    return Err(ConnectError::Unreachable(ErrorKind::TimedOut.into()));
                }
                Err(_) => return Err(ConnectError::Deadline),
            }
            if Instant::now() + STARTING_RETRY >= deadline {
                return Err(ConnectError::Deadline);
            }
            tokio::time::sleep(STARTING_RETRY).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A vector of handles is whole whenever a panic could strike.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
