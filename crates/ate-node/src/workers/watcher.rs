//! Listens to a herder for actors that end by themselves.

use std::time::Duration;

use ateom::driver::{self as pb, stats_response::State};
use tokio::sync::mpsc;

use super::client::Client;

/// A stream that breaks while the herder lives is opened again after this.
const REOPEN: Duration = Duration::from_millis(200);
/// A worker has one actor, which ends once.
const BACKLOG: usize = 8;

/// Ends when the receiver is dropped.
pub(super) fn watch(client: Client) -> mpsc::Receiver<pb::Event> {
    let (tx, rx) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let listening = async {
            loop {
                if listen(&client, &tx).await.is_err() {
                    return;
                }
                tokio::time::sleep(REOPEN).await;
            }
        };
        tokio::select! {
            () = listening => (),
            () = tx.closed() => (),
        }
    });
    rx
}

/// Passes events on until the stream breaks. Fails when nobody wants them any more.
async fn listen(client: &Client, tx: &mpsc::Sender<pb::Event>) -> Result<(), mpsc::error::SendError<pb::Event>> {
    let Ok(mut events) = client.events().await else { return Ok(()) };
    // What happened before we listened is in the state.
    if let Ok(stats) = client.stats().await
        && stats.state() == State::Ended
    {
        let message = "it ended while nobody listened".to_owned();
        let (activation, actor_uid) = (stats.activation, stats.actor_uid);
        tx.send(pb::Event { activation, actor_uid, kind: "exited".to_owned(), message }).await?;
    }
    while let Ok(Some(event)) = events.message().await {
        tx.send(event).await?;
    }
    Ok(())
}
