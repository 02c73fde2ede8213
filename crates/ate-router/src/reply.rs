//! What a client is told when the router cannot forward: a status, a reason, what to do.

use ate_api::{Error, Reason};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::body::Body;

/// The stable reason of an answer that comes from the router and not from the actor.
const REASON: HeaderName = HeaderName::from_static("x-ate-reason");
/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

pub(crate) fn error(e: &Error) -> Response<Body> {
    reply(status(e), e)
}

/// The request itself cannot be served, by whatever actor.
pub(crate) fn refuse(status: StatusCode, reason: Reason, message: &str, hint: &str) -> Response<Body> {
    reply(status, &Error::new(reason, message).hint(hint))
}

fn reply(status: StatusCode, e: &Error) -> Response<Body> {
    let message = if e.object.is_empty() { e.message.clone() } else { format!("{}: {}", e.object, e.message) };
    let text = serde_json::json!({ "reason": e.reason.as_str(), "message": message, "hint": e.hint });
    let mut response = Response::new(Body::text(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REASON, HeaderValue::from_static(e.reason.as_str()));
    // Trying again does not help where somebody has to act first.
    if status == StatusCode::SERVICE_UNAVAILABLE && e.is_retryable() {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

fn status(e: &Error) -> StatusCode {
    match e.reason {
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::PermissionDenied => StatusCode::FORBIDDEN,
        Reason::DeadlineExceeded | Reason::NotReady => StatusCode::GATEWAY_TIMEOUT,
        Reason::ActorExited => StatusCode::BAD_GATEWAY,
        // Somebody has to act first, but then the same request works.
        Reason::NoSuitableWorker
        | Reason::NoSandboxConfig
        | Reason::AssetRevoked
        | Reason::SecretUnavailable
        | Reason::DiskFull
        | Reason::WrongState => StatusCode::SERVICE_UNAVAILABLE,
        _ if e.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
