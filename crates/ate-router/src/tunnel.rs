//! After an upgrade (WebSocket and the like) both sides are joined byte by byte.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::route::InFlight;

/// Joins both sides until one closes, the route is cut or the router stops. Counts as in flight all the while.
pub(crate) fn join(client: OnUpgrade, actor: OnUpgrade, in_flight: InFlight, stop: CancellationToken) {
    tokio::spawn(async move {
        let joined = async {
            let (client, actor) = tokio::try_join!(client, actor).map_err(std::io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(actor)).await
        };
        let ended = tokio::select! {
            () = in_flight.route.cut.cancelled() => "the route was closed".to_owned(),
            () = stop.cancelled() => "the router stops".to_owned(),
            ended = joined => ended.map_or_else(|e| e.to_string(), |_| "closed".to_owned()),
        };
        tracing::debug!(activation = %in_flight.route.route.activation, "tunnel ended: {ended}");
    });
}
