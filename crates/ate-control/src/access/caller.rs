//! Somebody who is known: what they may, how they were recognised, and until when that holds.

use std::{fmt, net::SocketAddr, time::Duration};

use ate_api::{Error, Reason};
use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Rights;
use crate::records::now_ms;

#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The token's name, `uid:N`, or the user's name in the cluster.
    pub(crate) name: String,
    pub(crate) rights: Rights,
    pub(crate) how: How,
    pub(crate) peer: Peer,
    pub(crate) standing: Standing,
}

/// How a caller was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Token,
    /// The kernel said which user is at the other end of the socket.
    PeerCredentials,
    /// The cluster said whose token it is.
    Review,
}

impl How {
    pub(crate) fn word(self) -> &'static str {
        match self {
            How::Token => "token",
            How::PeerCredentials => "peer-credentials",
            How::Review => "review",
        }
    }
}

/// The other end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    /// User and process at the other end of a unix socket, as the kernel tells them.
    Unix {
        uid: u32,
        pid: Option<i32>,
    },
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => write!(f, "{address}"),
            Peer::Unix { uid, pid: Some(pid) } => write!(f, "unix uid={uid} pid={pid}"),
            Peer::Unix { uid, pid: None } => write!(f, "unix uid={uid}"),
            Peer::Unknown => f.write_str("unknown"),
        }
    }
}

/// How long a caller stays who they are. Calls are checked when they come; streams go on and watch this.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub(crate) expires_ms: Option<i64>,
    /// Never cancelled for callers without a token.
    pub(crate) revoked: CancellationToken,
}

impl Standing {
    pub(crate) fn has_expired(&self) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms())
    }

    /// Returns when the token no longer counts, with what to tell.
    pub(crate) async fn over(&self) -> Error {
        let expired = async {
            match self.expires_ms {
                None => std::future::pending().await,
                Some(at) => {
                    // The clock may be set back while one sleeps.
                    while at > now_ms() {
                        let left = u64::try_from(at - now_ms()).unwrap_or(0).max(1);
                        tokio::time::sleep(Duration::from_millis(left)).await;
                    }
                }
            }
        };
        tokio::select! {
            () = self.revoked.cancelled() => Error::new(Reason::Unauthenticated, "the token was revoked"),
            () = expired => expired_token(),
        }
    }
}

impl Caller {
    /// Returns when they are nobody any more, or may not do any longer what was asked; with what to tell.
    async fn over(&self) -> Error {
        let reviewed = async {
            match &self.rights {
                Rights::Granted(_) => std::future::pending().await,
                Rights::Reviewed(reviewed) => reviewed.over().await,
            }
        };
        tokio::select! {
            e = self.standing.over() => e,
            e = reviewed => e,
        }
    }

    /// The stream for as long as the caller's token counts; then one error that says why it ends.
    pub(crate) fn while_it_holds<T: Send + 'static>(
        self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
        let over = Box::pin(async move { self.over().await });
        futures::stream::unfold((Box::pin(stream), Some(over)), |(mut stream, over)| async move {
            let mut over = over?;
            tokio::select! {
                e = &mut over => Some((Err(Status::from(e)), (stream, None))),
                item = stream.next() => item.map(|item| (item, (stream, Some(over)))),
            }
        })
    }
}

pub(crate) fn expired_token() -> Error {
    Error::new(Reason::Unauthenticated, "the token has expired").hint("have a new one made with `ate token create`")
}
