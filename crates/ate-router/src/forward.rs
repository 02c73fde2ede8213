//! One request: find the actor, reach it, send, and pass the answer back.

use std::time::{Duration, Instant};

use ate_api::{
    Error, Reason,
    host::{self, ActorHost, HostError},
    id::{ActorName, GOLDEN_ATESPACE},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri};
use hyper::{body::Incoming, upgrade};

use crate::{
    body::Body,
    headers,
    pool::{ConnectError, Http2},
    reply,
    route::InFlight,
    server::Shared,
    tunnel,
    wire::Http1,
};

/// How long an actor may take to begin its answer. Agents may think for minutes; nothing waits for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Pause before asking again after a route closed between being woken and being used.
const LOST_RACE_PAUSE: Duration = Duration::from_millis(5);

/// A connection with nothing sent on it yet for this request.
enum Connection {
    Http1(u16, Http1),
    Http2(Http2),
}

/// Answers a request, whatever happens. `client`: the address it came from, as text.
pub(crate) async fn handle(shared: &Shared, client: &HeaderValue, mut request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::CONNECT {
        return reply::refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            Reason::Invalid,
            "CONNECT is not offered",
            "use an upgrade, as WebSocket does",
        );
    }
    let (host, target) = match target(&request) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    let protocol = match request.version() {
        Version::HTTP_11 => headers::upgrade(request.headers()),
        _ => None,
    };
    let client_upgrade = protocol.is_some().then(|| upgrade::on(&mut request));
    let http2 = request.version() == Version::HTTP_2 && headers::needs_http2(request.headers());
    prepare(&mut request, host, client, protocol, http2);

    let deadline = Instant::now() + shared.options.wake_timeout;
    let sent = send(shared, &target, request, http2, deadline).await;
    let (mut response, connection, in_flight) = match sent {
        Ok(sent) => sent,
        Err(e) => return reply::error(&e),
    };

    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let protocol = response.headers().get(header::UPGRADE).cloned();
        let (Some(client), Some(protocol), Some((_, connection))) = (client_upgrade, protocol, connection) else {
            return reply::error(&broken(&target.actor, "it switched protocols without being asked"));
        };
        let actor = upgrade::on(&mut response);
        connection.finish().await;
        tunnel::join(client, actor, in_flight, shared.stop.clone());
        let mut granted = response.map(|_| Body::text(""));
        headers::strip_hop_by_hop(granted.headers_mut());
        headers::set_upgrade(granted.headers_mut(), protocol);
        return granted;
    }

    headers::strip_hop_by_hop(response.headers_mut());
    response.map(|body| Body::stream(body, connection, in_flight))
}

/// The host as the client wrote it, and whom it means.
fn target(request: &Request<Incoming>) -> Result<(HeaderValue, ActorHost), Box<Response<Body>>> {
    let malformed = |message: &str| {
        let hint = "name the actor in the host: [PORT-]ACTOR.ATESPACE.localhost";
        Box::new(reply::refuse(StatusCode::BAD_REQUEST, Reason::Invalid, message, hint))
    };
    let host = match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => {
            let mut named = request.headers().get_all(header::HOST).into_iter();
            let host = named.next().cloned();
            if named.next().is_some() {
                return Err(malformed("more than one Host header"));
            }
            host
        }
    };
    let Some(host) = host else { return Err(malformed("no Host header")) };
    let parsed = host.to_str().map_err(|_| HostError::Malformed).and_then(host::parse);
    match parsed {
        // A request to a golden actor would become part of every actor made from it.
        Ok(target) if target.actor.atespace == GOLDEN_ATESPACE => Err(Box::new(reply::refuse(
            StatusCode::NOT_FOUND,
            Reason::NotFound,
            "golden actors take no requests",
            "create an actor from the template and ask that",
        ))),
        Ok(target) => Ok((host, target)),
        Err(HostError::Malformed) => Err(malformed("malformed host name")),
        Err(HostError::NotOurs) => Err(Box::new(reply::refuse(
            StatusCode::NOT_FOUND,
            Reason::NotFound,
            "no actor has this host name",
            "actors are at [PORT-]ACTOR.ATESPACE.localhost and [PORT-]ACTOR.ATESPACE.actors.resources.substrate.ate.dev",
        ))),
    }
}

/// Makes a client's request one of ours.
fn prepare(
    request: &mut Request<Incoming>,
    host: HeaderValue,
    client: &HeaderValue,
    upgrade: Option<HeaderValue>,
    http2: bool,
) {
    let from_http2 = request.version() == Version::HTTP_2;
    let uri = std::mem::take(request.uri_mut());
    *request.uri_mut() = address(uri, &host, http2);
    *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    request.extensions_mut().clear();

    let headers = request.headers_mut();
    headers::strip_request(headers);
    headers::add_forwarded(headers, client, &host);
    if let Some(protocol) = upgrade {
        headers::set_upgrade(headers, protocol);
    }
    if http2 {
        headers.remove(header::HOST);
    } else {
        headers.insert(header::HOST, host);
        if from_http2 {
            headers::join_cookies(headers);
        }
    }
}

/// Path only for HTTP/1.1, with scheme and authority for HTTP/2.
fn address(uri: Uri, host: &HeaderValue, http2: bool) -> Uri {
    if !http2 && uri.authority().is_none() {
        return uri;
    }
    let mut parts = uri::Parts::default();
    parts.path_and_query = uri.into_parts().path_and_query.or_else(|| Some(uri::PathAndQuery::from_static("/")));
    if http2 {
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = uri::Authority::try_from(host.as_bytes()).ok();
    }
    // The host was parsed before: its parts are good.
    Uri::from_parts(parts).unwrap_or_default()
}

type Sent = (Response<Incoming>, Option<(u16, Http1)>, InFlight);

/// Reaches the actor and sends the request; tries again as long as nothing of it has left.
async fn send(
    shared: &Shared,
    target: &ActorHost,
    mut request: Request<Incoming>,
    http2: bool,
    deadline: Instant,
) -> Result<Sent, Error> {
    let actor = &target.actor;
    let mut confirmed = false;
    loop {
        let in_flight = reach(shared, actor, deadline).await?;
        let port = target.port.unwrap_or(in_flight.route.route.default_port);
        let connection = match connect(&in_flight, port, http2, deadline).await {
            Ok(connection) => connection,
            Err(ConnectError::Cut) => continue,
            Err(ConnectError::Unreachable(e)) if !confirmed => {
                // Its worker may be gone and nobody has told us yet.
                tracing::debug!(%actor, "no connection, asking again where it is: {e}");
                confirmed = true;
                drop(in_flight);
                wake(shared, actor, deadline).await?;
                continue;
            }
            Err(e) => return Err(unconnected(actor, port, e)),
        };

        let until = Instant::now() + ANSWER_TIMEOUT;
        let (answer, connection) = match connection {
            Connection::Http1(port, mut connection) => {
                let answer = tokio::time::timeout_at(until.into(), connection.send(request)).await;
                (answer, Some((port, connection)))
            }
            Connection::Http2(mut sender) => {
                (tokio::time::timeout_at(until.into(), sender.try_send_request(request)).await, None)
            }
        };
        match answer {
            Ok(Ok(response)) => return Ok((response, connection, in_flight)),
            Ok(Err(mut e)) => match e.take_message() {
                Some(unsent) if Instant::now() < deadline => request = unsent,
                _ => return Err(broken(actor, &e.into_error().to_string())),
            },
            Err(_) => {
                return Err(Error::new(
                    Reason::DeadlineExceeded,
                    format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
                )
                .on(format!("actor/{actor}")));
            }
        }
    }
}

/// Begins a request on the actor's route, waking the actor if it has none.
async fn reach(shared: &Shared, actor: &ActorName, deadline: Instant) -> Result<InFlight, Error> {
    loop {
        if let Some(in_flight) = shared.table.begin(actor) {
            return Ok(in_flight);
        }
        wake(shared, actor, deadline).await?;
        if let Some(in_flight) = shared.table.begin(actor) {
            return Ok(in_flight);
        }
        tokio::time::sleep(LOST_RACE_PAUSE).await;
    }
}

async fn wake(shared: &Shared, actor: &ActorName, deadline: Instant) -> Result<(), Error> {
    let woken = shared.table.wake(actor, &shared.waker, shared.options.wake_timeout);
    match tokio::time::timeout_at(deadline.into(), woken).await {
        Ok(Ok(())) if Instant::now() < deadline => Ok(()),
        // The wake was begun by an earlier request, whose time was over: ours is not.
        Ok(Err(e)) if e.reason == Reason::DeadlineExceeded && Instant::now() + LOST_RACE_PAUSE < deadline => Ok(()),
        Ok(Err(e)) => Err(e),
        _ => Err(Error::new(
            Reason::DeadlineExceeded,
            format!("not awake within {} s", shared.options.wake_timeout.as_secs()),
        )
        .on(format!("actor/{actor}"))
        .hint("try again; `ate describe actor` shows what it is waiting for")),
    }
}

async fn connect(in_flight: &InFlight, port: u16, http2: bool, deadline: Instant) -> Result<Connection, ConnectError> {
    let route = &in_flight.route;
    if http2 {
        return match route.pools.http2(port) {
            Some(sender) => Ok(Connection::Http2(sender)),
            None => route.connect_http2(port, deadline).await.map(Connection::Http2),
        };
    }
    let connection = match route.pools.take_http1(port).await {
        Some(connection) => connection,
        None => route.connect_http1(port, deadline).await?,
    };
    Ok(Connection::Http1(port, connection))
}

fn unconnected(actor: &ActorName, port: u16, e: ConnectError) -> Error {
    let error = match e {
        ConnectError::Deadline => {
            Error::new(Reason::DeadlineExceeded, format!("port {port} did not accept a connection in time"))
        }
        ConnectError::Refused => Error::new(Reason::ActorExited, format!("nothing listens on its port {port}"))
            .hint("put the port in front of the host name: 8080-ACTOR.ATESPACE.localhost"),
        ConnectError::Unreachable(e) => Error::new(Reason::ActorExited, format!("it cannot be reached: {e}")),
        ConnectError::Protocol(e) => Error::new(Reason::ActorExited, format!("port {port} speaks no HTTP: {e}")),
        ConnectError::Cut => Error::new(Reason::Unavailable, "it was suspended just now").hint("try again"),
    };
    error.on(format!("actor/{actor}"))
}

fn broken(actor: &ActorName, why: &str) -> Error {
    Error::new(Reason::ActorExited, format!("the connection broke before an answer: {why}"))
        .on(format!("actor/{actor}"))
        .hint("`ate logs actor` shows what it said last")
}
