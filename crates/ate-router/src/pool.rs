//! The connections of one route. They belong to it alone, so none survives the activation it was made for.

use std::{
    io::ErrorKind,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::route::OpenRoute;

/// An idle connection older than this is not used again: servers close theirs after as little as two seconds, and
/// a request that meets such a close would fail for nothing. A new connection costs a tenth of a millisecond.
const MAX_IDLE_TIME: Duration = Duration::from_millis(1500);
/// Idle connections kept for one route.
const MAX_IDLE: usize = 256;
/// For one attempt. Workers are a bridge or a rack away: what does not answer by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that just started or was just restored may not listen yet: for this long after the route opened, a
/// refused connection is tried again, this often.
const STARTING_TIME: Duration = Duration::from_secs(5);
const STARTING_RETRY: Duration = Duration::from_millis(5);

pub(crate) type Http1 = http1::SendRequest<Incoming>;
pub(crate) type Http2 = http2::SendRequest<Incoming>;

#[derive(Default)]
pub(crate) struct Pools {
    http1: Mutex<Vec<Idle>>,
    http2: Mutex<Vec<(u16, Http2)>>,
}

struct Idle {
    port: u16,
    sender: Http1,
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
    /// It listens but does not speak HTTP/2.
    Protocol(hyper::Error),
}

impl Pools {
    /// Takes a connection that is ready now.
    pub(crate) fn take_http1(&self, port: u16) -> Option<Http1> {
        let mut idle = lock(&self.http1);
        // The latest used is the likeliest to be alive, and lets the others grow old.
        let mut i = idle.len();
        while i > 0 {
            i -= 1;
            if idle[i].sender.is_closed() || idle[i].since.elapsed() > MAX_IDLE_TIME {
                idle.swap_remove(i);
            } else if idle[i].port == port && idle[i].sender.is_ready() {
                return Some(idle.remove(i).sender);
            }
        }
        None
    }

    pub(crate) fn give_back_http1(&self, port: u16, sender: Http1) {
        if sender.is_closed() {
            return;
        }
        let mut idle = lock(&self.http1);
        if idle.len() < MAX_IDLE {
            idle.push(Idle { port, sender, since: Instant::now() });
        }
    }

    /// A handle on the shared connection, if it lives.
    pub(crate) fn http2(&self, port: u16) -> Option<Http2> {
        let mut open = lock(&self.http2);
        open.retain(|(_, sender)| !sender.is_closed());
        open.iter().find(|(p, _)| *p == port).map(|(_, sender)| sender.clone())
    }
}

impl OpenRoute {
    /// A new HTTP/1.1 connection, fit for upgrades. Its task ends with the connection or with the route.
    pub(crate) async fn connect_http1(&self, port: u16, deadline: Instant) -> Result<Http1, ConnectError> {
        let io = TokioIo::new(self.connect(port, deadline).await?);
        let (sender, connection) = http1::handshake(io).await.map_err(ConnectError::Protocol)?;
        drive(self.cut.clone(), connection.with_upgrades());
        Ok(sender)
    }

    /// A new HTTP/2 connection, shared by all requests for the port.
    pub(crate) async fn connect_http2(&self, port: u16, deadline: Instant) -> Result<Http2, ConnectError> {
        let io = TokioIo::new(self.connect(port, deadline).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(ConnectError::Protocol)?;
        drive(self.cut.clone(), connection);
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

/// Runs a connection until it ends or its route is cut.
fn drive(cut: CancellationToken, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        tokio::select! {
            // Asked first: a cut connection writes nothing more.
            biased;
            () = cut.cancelled() => {}
            ended = connection => {
                if let Err(e) = ended {
                    tracing::debug!("connection to an actor ended: {e}");
                }
            }
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A vector of handles is whole whenever a panic could strike.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
