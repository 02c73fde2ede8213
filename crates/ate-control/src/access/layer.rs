//! Finds out who calls, before any service is reached. From there on a call goes to its end, whether or not somebody still
//! waits for the answer: who leaves between a write and what follows from it must not leave the two apart.
//!
//! A token outweighs peer credentials, so root can try what a token may. One that does not count is refused and never
//! passed over. Health alone is told to everybody: it says whether the server serves, and probes have no credentials.

use std::{
    future::{Future, ready},
    panic::resume_unwind,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ate_api::{Error, Reason, role::Role};
use tokio_util::task::TaskTracker;
use tonic::{
    Status,
    codegen::http::{Extensions, HeaderMap, Request, Response, header::AUTHORIZATION},
    transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo},
};
use tower::{Layer, Service};

use super::{
    Grant, Rights,
    caller::{Caller, How, Peer, Standing},
    review::Reviews,
    rights::Reviewed,
    tokens,
};
use crate::core::Core;

const HEALTH: &str = "/grpc.health.v1.Health/";
const ROOT: u32 = 0;

#[derive(Clone)]
pub(crate) struct Authenticate(pub(crate) Arc<Core>);

impl<S> Layer<S> for Authenticate {
    type Service = Authenticated<S>;
    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated { core: self.0.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Authenticated<S> {
    core: Arc<Core>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Authenticated<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Send,
    S::Future: Send,
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.uri().path().starts_with(HEALTH) {
            return Box::pin(self.inner.call(request));
        }
        let peer = peer(request.extensions());
        match who(&self.core, request.headers(), peer) {
            Ok(Who::Known(caller)) => {
                request.extensions_mut().insert(*caller);
                Box::pin(to_its_end(self.core.tasks.clone(), self.inner.call(request)))
            }
            Ok(Who::Ask { reviews, token }) => {
                // The one that said it is ready does the work; its copy waits for the next call.
                let copy = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, copy);
                let core = self.core.clone();
                Box::pin(async move {
                    match reviewed(reviews, &token, peer).await {
                        Ok(caller) => {
                            request.extensions_mut().insert(caller);
                            to_its_end(core.tasks.clone(), inner.call(request)).await
                        }
                        Err(e) => Ok(refused(&core, peer, request.uri().path(), e)),
                    }
                })
            }
            Err(e) => {
                let refused = refused(&self.core, peer, request.uri().path(), e);
                Box::pin(ready(Ok(refused)))
            }
        }
    }
}

async fn to_its_end<T: Send + 'static>(tasks: TaskTracker, work: impl Future<Output = T> + Send + 'static) -> T {
    match tasks.spawn(work).await {
        Ok(done) => done,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is ending, and we with it.
            Err(_) => std::future::pending().await,
        },
    }
}

fn refused<R: Default>(core: &Core, peer: Peer, path: &str, e: Error) -> Response<R> {
    core.access.audit.unauthenticated(peer, path, &e);
    Status::from(e).into_http()
}

enum Who {
    Known(Box<Caller>),
    /// The token is none of this server's, and there is somebody who may know it.
    Ask {
        reviews: Arc<Reviews>,
        token: String,
    },
}

impl Who {
    fn known(caller: Caller) -> Who {
        Who::Known(Box::new(caller))
    }
}

async fn reviewed(reviews: Arc<Reviews>, token: &str, peer: Peer) -> Result<Caller, Error> {
    let identity = reviews.identify(token).await?;
    Ok(Caller {
        name: identity.name.clone(),
        rights: Rights::Reviewed(Reviewed::new(reviews, identity, token)),
        standing: Standing::default(),
        how: How::Review,
        peer,
    })
}

fn who(core: &Core, headers: &HeaderMap, peer: Peer) -> Result<Who, Error> {
    if let Some(header) = headers.get(AUTHORIZATION) {
        let token = header.to_str().ok().and_then(|h| h.strip_prefix("Bearer ")).ok_or_else(|| {
            Error::new(Reason::Unauthenticated, "the authorization header is not \"Bearer TOKEN\"")
                .hint("put the token alone into ATE_TOKEN, or into the file that --token-file names")
        })?;
        let token = token.trim();
        if let Some(reviews) = &core.access.reviews
            && !token.starts_with(tokens::PREFIX)
        {
            return Ok(Who::Ask { reviews: reviews.clone(), token: token.to_owned() });
        }
        let token = core.access.tokens.find(token)?;
        return Ok(Who::known(Caller {
            name: token.record.name.clone(),
            rights: Rights::Granted(token.grant.clone()),
            how: How::Token,
            peer,
            standing: token.standing(),
        }));
    }
    // Root can read the store anyway, and so can the user this process runs as.
    match peer {
        Peer::Unix { uid, .. } if uid == ROOT || uid == rustix::process::geteuid().as_raw() => Ok(Who::known(Caller {
            name: format!("uid:{uid}"),
            rights: Rights::Granted(Arc::new(Grant::everywhere(Role::Admin))),
            how: How::PeerCredentials,
            peer,
            standing: Standing::default(),
        })),
        Peer::Unix { uid, .. } => Err(Error::new(
            Reason::Unauthenticated,
            format!("user {uid} is neither root nor the one the server runs as, and brought no token"),
        )
        .hint(GET_A_TOKEN)),
        _ => Err(Error::new(Reason::Unauthenticated, "this address needs a token").hint(GET_A_TOKEN)),
    }
}

const GET_A_TOKEN: &str = "have one made on the server with `ate token create`, and put it into ATE_TOKEN or a file named \
                           by ATE_TOKEN_FILE; root on the server's machine needs none over its unix socket";

fn peer(extensions: &Extensions) -> Peer {
    if let Some(unix) = extensions.get::<UdsConnectInfo>() {
        return match &unix.peer_cred {
            Some(cred) => Peer::Unix { uid: cred.uid(), pid: cred.pid() },
            None => Peer::Unknown,
        };
    }
    let tcp = extensions.get::<TcpConnectInfo>();
    let tcp = tcp.or_else(|| extensions.get::<TlsConnectInfo<TcpConnectInfo>>().map(TlsConnectInfo::get_ref));
    tcp.and_then(TcpConnectInfo::remote_addr).map_or(Peer::Unknown, Peer::Tcp)
}
