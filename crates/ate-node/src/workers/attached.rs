//! A herder in a pod: found by its socket, with whatever it holds. It was there before this node agent and may be after it.

use std::{fs::File, net::Ipv4Addr, path::PathBuf, time::Duration};

use ate_agent::Pod;
use ate_api::{Error, Reason};
use ate_failpoint::step;
use ateom::driver::{GetInfoResponse, StatsResponse, stats_response::State as HerderState};
use tokio::sync::watch;

use super::{
    client::Client,
    kept::{Keep, Kept, Seated},
};

/// The herder sets up its interface and address translation first.
const CONNECT: Duration = Duration::from_secs(10);
const RESET: Duration = Duration::from_secs(20);
pub(crate) const SOCKET: &str = "driver.sock";

/// A herder in a pod of this machine.
pub(crate) struct Attached {
    pub(crate) client: Client,
    pub(crate) info: GetInfoResponse,
    pub(crate) address: Ipv4Addr,
    pub(crate) pod: Pod,
    pub(crate) keep: Keep,
    gone: watch::Receiver<Option<String>>,
}

/// Where a herder is to be found.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) pod: Pod,
    pub(crate) address: Ipv4Addr,
}

impl Attached {
    /// Connects, and finds out who is on it. What nobody can vouch for is taken off. It is of whatever class it says: its
    /// pool may be of another by now.
    pub(crate) async fn find(place: Place) -> Result<(Self, Kept), Error> {
        let Place { dir, pod, address } = place;
        let open = File::open(&dir).map_err(|e| {
            Error::new(Reason::Unavailable, format!("its herder is not up yet: {}: {e}", dir.display()))
        })?;
        let (client, info) = step!("attach.connect", Client::connect(open, SOCKET, CONNECT), held)?;
        let keep = Keep::new(dir, info.instance.clone());
        let stats = client.stats().await?;
        let kept = settle(&client, &stats, keep.read().unwrap_or_default()).await?;
        let gone = watch_over(client.clone(), info.instance.clone());
        Ok((Attached { client, info, address, pod, keep, gone }, kept))
    }

    pub(crate) async fn ended(&mut self) -> String {
        match self.gone.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "nobody watches over the herder any more".to_owned(),
        }
    }
}

/// Brings herder and what was kept of it in line: an actor runs on if both agree on who it is.
async fn settle(client: &Client, stats: &StatsResponse, mut kept: Kept) -> Result<Kept, Error> {
    let is_on_it = |s: &Seated| s.seat.activation.0 == stats.activation && s.seat.actor.uid.as_str() == stats.actor_uid;
    kept.seated = kept.seated.filter(is_on_it);
    match (stats.state(), &kept.seated) {
        (HerderState::Idle | HerderState::Prepared, _) => kept.seated = None,
        // That it ended is heard of by listening.
        (HerderState::Running | HerderState::Ended, Some(_)) => {}
        // The capture was of the node agent before this one.
        (HerderState::Frozen, Some(_)) => step!("attach.thaw", client.thaw(stats.activation), repeatable)?,
        _ => {
            kept.seated = None;
            if let Err(e) = step!("attach.reset", client.reset(RESET), repeatable) {
                client.end().await;
                return Err(e);
            }
        }
    }
    Ok(kept)
}

/// Says when the herder is gone. A stream of it that breaks may be opened again; a herder that is another may not. Ends with
/// the receiver.
fn watch_over(client: Client, instance: String) -> watch::Receiver<Option<String>> {
    let (tx, rx) = watch::channel(None);
    tokio::spawn(async move {
        let watching = async {
            loop {
                if let Ok(mut events) = client.events().await {
                    while let Ok(Some(_)) = events.message().await {}
                }
                match client.info().await {
                    Ok(info) if info.instance == instance => tokio::time::sleep(Duration::from_millis(200)).await,
                    Ok(_) => return "another herder is in its pod now".to_owned(),
                    Err(e) => return format!("the herder in its pod ended: {}", e.message),
                }
            }
        };
        tokio::select! {
            why = watching => drop(tx.send(Some(why))),
            () = tx.closed() => {}
        }
    });
    rx
}
