//! What a control plane that does not lead does with its address: it is there, which is all that a probe asks, and serves
//! nobody. Callers are led to the one that leads.

use tokio::net::TcpListener;

/// Takes connections and closes them, for as long as it is polled.
pub(super) async fn turn_away(listener: &TcpListener) -> ! {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => drop(connection),
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
